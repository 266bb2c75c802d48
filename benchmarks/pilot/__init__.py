"""``fedpilot bench pilot``: those who steer a federation, scored honestly and offline."""
