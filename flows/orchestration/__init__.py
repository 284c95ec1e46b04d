"""Everything that uses Prefect: tasks, limits shared by all runs, artifacts."""
