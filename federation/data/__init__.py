"""From files to clients: rows, tokens, partitions, splits, and how much clients differ."""
