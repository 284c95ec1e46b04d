"""Batch mode: send batches, follow them at the provider, collect their answers."""
