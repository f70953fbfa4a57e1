"""Compiled loops: arrays in, arrays out. Only numba and numpy are imported here."""
