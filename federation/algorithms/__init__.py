"""Federated algorithms as values, and what happens to updates on their way."""
