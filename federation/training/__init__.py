"""Many clients' local training in one pass over one frozen base model."""
