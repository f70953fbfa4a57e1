"""The vecdb.v1 protocol: generated stubs, values as messages and back, errors as statuses."""
