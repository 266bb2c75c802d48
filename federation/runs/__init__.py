"""The run directory: one writer, a journal, checkpoints, and what readers see of them."""
