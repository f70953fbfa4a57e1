"""Models by name, their files by SHA-256, and how both get onto this machine.

Encoders and decoders alike find their weights here. Nothing of the extras is imported with this.
"""
