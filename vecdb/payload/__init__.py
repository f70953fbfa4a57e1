"""Payloads: the JSON object beside each point, and the filters over its fields."""

from vecdb.payload.encoding import decode_payload, decode_payloads, encode_payload
from vecdb.payload.filter import Predicate, parse_filter

__all__ = ["Predicate", "decode_payload", "decode_payloads", "encode_payload", "parse_filter"]
