"""What is kept on disk: inputs read, plans frozen, events appended, results stored, outputs published."""
