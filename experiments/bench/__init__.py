"""Benchmarks: `mntp bench ...`; each prints one line of JSON."""
