"""The tokenizer of a GGUF file: byte-level BPE, on the tokenizers library.

Text never becomes a control token: ``<|im_end|>`` inside a message is encoded as its characters.
Only the chat template's own text does, so that what is quoted in a prompt cannot end its turn.
"""

from __future__ import annotations

import codecs
import json
import re
import secrets
from collections.abc import Sequence

from vecdb.decode.base import Message
from vecdb.decode.chat_template import ChatTemplate
from vecdb.registry.extras import needs_extra

with needs_extra():
    from tokenizers import Tokenizer


class DecoderTokenizer:
    """Text to token ids, messages to a prompt, and token ids to bytes.

    Parameters
    ----------
    description
        JSON as written by `vecdb.decode.gguf_tokenizer.describe_tokenizer`.
    """

    def __init__(self, description: str) -> None:
        parts = json.loads(description)
        self.bpe = Tokenizer.from_str(parts["bpe"])
        self._controls: dict[str, int] = parts["controls"]
        self.end_token_ids: tuple[int, ...] = tuple(parts["end_token_ids"])
        self._prefix: list[int] = parts["prefix"]
        self._template = ChatTemplate(parts["chat_template"], parts["special_tokens"])
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._token_bytes = _token_bytes(self.bpe.get_vocab(), set(self._controls.values()))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of plain text; it has no control tokens, whatever it says."""
        ids: list[int] = self.bpe.encode(text, add_special_tokens=False).ids
        return ids

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt for the model's next turn.

        Raises
        ------
        InvalidParameterError, InvalidTextError
            If the messages are not of the documented form, or the template refuses them.
        """
        # Control tokens quoted in a message are put aside while the template is rendered. The
        # placeholders cannot be foreseen by whoever wrote the text.
        nonce = secrets.token_hex(8)
        quoted: list[str] = []

        def put_aside(match: re.Match[str]) -> str:
            quoted.append(match.group())
            return f"\x00{nonce}:{len(quoted) - 1}\x00"

        safe = [
            {
                key: self._control_pattern.sub(put_aside, value)
                if isinstance(value, str) and key == "content"
                else value
                for key, value in message.items()
            }
            for message in messages
        ]
        rendered = self._template.render(safe)
        placeholder = re.compile(f"\x00{nonce}:(\\d+)\x00")

        def plain(text: str) -> list[int]:
            return self.encode(placeholder.sub(lambda match: quoted[int(match.group(1))], text))

        ids = list(self._prefix)
        end = 0
        for match in self._control_pattern.finditer(rendered):
            ids += plain(rendered[end : match.start()])
            ids.append(self._controls[match.group()])
            end = match.end()
        ids += plain(rendered[end:])
        if ids[: len(self._prefix)] == ids[len(self._prefix) : 2 * len(self._prefix)]:
            return ids[len(self._prefix) :]  # the template writes the prefix itself
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes that a token stands for; control tokens stand for none."""
        return self._token_bytes.get(token_id, b"")


class TextAssembler:
    """Turns tokens into text as they come: a character is given out once all its bytes are there.

    Bytes that are not UTF-8 become U+FFFD, as `bytes.decode(errors="replace")` has it.
    """

    def __init__(self, tokenizer: DecoderTokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token_id: int) -> str:
        """Return the text that this token completes."""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        """Return what is left of an unfinished character."""
        return self._utf8.decode(b"", final=True)


def byte_of_character() -> dict[str, int]:
    """Return GPT-2's map from the characters of byte-level vocabularies to bytes.

    Printable bytes stand for themselves; the others are moved above U+0100, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + place): byte for place, byte in enumerate(others)})
    return table


def _token_bytes(vocabulary: dict[str, int], controls: set[int]) -> dict[int, bytes]:
    table = byte_of_character()
    result: dict[int, bytes] = {}
    for token, token_id in vocabulary.items():
        if token_id not in controls:
            if all(character in table for character in token):
                result[token_id] = bytes(table[character] for character in token)
            else:  # a token added by hand, written as it reads
                result[token_id] = token.encode()
    return result
