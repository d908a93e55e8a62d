"""Timings, side by side in one run. `python -m benchmarks` runs all of them; nothing here is a test."""
