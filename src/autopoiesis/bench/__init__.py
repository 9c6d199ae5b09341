"""Benchmarks: what is claimed of speed and memory, measured on the machine at hand. See `docs/benchmarks.md`."""
