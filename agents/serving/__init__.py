"""Serving a run: a model server beside it, whose adapter follows the rounds."""
