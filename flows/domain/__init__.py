"""Decisions. Nothing here knows Prefect, the network, the disk, the clock, Arrow or DuckDB: values in, values out."""
