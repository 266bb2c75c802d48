"""Policies: who proposes what a round should be, and the door where a name becomes one of them."""
