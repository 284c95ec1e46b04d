"""Accounts: what the price table says and whether others say the same; our books against a provider's bill."""
