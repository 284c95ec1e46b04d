"""All that knows Prefect: tasks, limits that all runs share, artifacts."""
