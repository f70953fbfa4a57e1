"""Benchmarks. Every result carries its quality beside its speed, the commit and the machine."""
