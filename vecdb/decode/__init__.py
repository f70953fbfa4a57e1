"""Tokens to tokens: the decoders that write answers, in this process or behind a URL."""

from vecdb.decode.base import ChatModel, ChatStream, Decoder, GenerationParams, Message
from vecdb.decode.load import load_chat_model

__all__ = [
    "ChatModel",
    "ChatStream",
    "Decoder",
    "GenerationParams",
    "Message",
    "load_chat_model",
]
