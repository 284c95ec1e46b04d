"""What Batchwerk connects to: providers, their credentials, and the embedded emulator. Never imports `flows`."""
