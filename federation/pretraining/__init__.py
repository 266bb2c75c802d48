"""Making a small base model from public texts, federatedly."""
