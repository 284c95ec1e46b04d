"""One process at work on one output: what it records, what stops it, whom it reaches, what it publishes."""
