"""``fedpilot bench pilot``: those who steer a federation, scored honestly and offline."""

from benchmarks.pilot.command import main

__all__ = ["main"]
