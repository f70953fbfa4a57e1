"""Text to vectors: `load_encoder` gives an `Encoder`; `vecdb.registry` knows the models.

Importing this package imports neither onnxruntime nor anything else of the extras.
"""

from vecdb.encode.base import Encoded, Encoder
from vecdb.encode.load import load_encoder

__all__ = ["Encoded", "Encoder", "load_encoder"]
