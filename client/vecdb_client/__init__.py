"""The Python client of a vecdb server."""
