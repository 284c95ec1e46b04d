"""What a provider does behind its routes: batches, their lives and faults, files, and the ledger. Knows no HTTP."""
