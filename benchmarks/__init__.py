"""Benchmarks: how fast fedpilot is on this machine, against what people would run without it."""
