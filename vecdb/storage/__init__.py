"""Bytes that last: write-ahead log, immutable files, manifests, and the one door to the disk.

The formats are described byte by byte in ``FORMAT.md``, beside this file.
"""
