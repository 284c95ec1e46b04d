"""One process working on one output: recording, stopping, clients, publishing."""
