"""Batch mode: send batches, poll them, collect their answers."""
