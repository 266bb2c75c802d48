"""Who trains next: selection rules, what the server knows of its clients, simulated devices."""
