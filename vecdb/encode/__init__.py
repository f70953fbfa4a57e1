"""Text to vectors: the model registry and the encoders."""
