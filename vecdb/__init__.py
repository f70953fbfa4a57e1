"""A vector database engine with a language model on each side of it."""
