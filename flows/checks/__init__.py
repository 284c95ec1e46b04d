"""What `batchwerk doctor` looks at: the machine, the providers, Prefect's server, an output's state."""
