"""The generated stubs of the vecdb.v1 protocol."""
