"""Made-up federations: from a profile to rows, their quality card, and the gate."""
