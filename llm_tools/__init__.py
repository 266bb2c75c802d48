"""What can be asked of a language model; knows nothing of federations."""
