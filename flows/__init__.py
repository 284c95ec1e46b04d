"""What Batchwerk does with its connections: plan, submit, collect, publish, report."""
