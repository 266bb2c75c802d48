"""How good a model is: likelihood, generations and choices, over sets, clients and federations."""
