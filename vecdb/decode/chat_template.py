"""Chat templates: the Jinja text that comes with a model and lays out its messages.

A template is part of a downloaded file, so it runs in Jinja's sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from vecdb.decode.base import Message
from vecdb.errors import DecoderError, InvalidParameterError, InvalidTextError, shown
from vecdb.registry.extras import needs_extra

with needs_extra():
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

ROLES = ("system", "user", "assistant")


class ChatTemplate:
    """A compiled chat template.

    Parameters
    ----------
    source
        The template's text.
    special_tokens
        Names that templates may use, such as ``bos_token`` and ``eos_token``.

    Raises
    ------
    DecoderError
        If the text is not a Jinja template.
    """

    def __init__(self, source: str, special_tokens: dict[str, str] | None = None) -> None:
        # What a template inserts is a prompt for a model, not HTML: escaping would change it.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        environment.globals["raise_exception"] = _raise_exception
        environment.globals.update(special_tokens or {})
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise DecoderError(f"the model's chat template cannot be compiled: {error}") from error

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt for the model's next turn.

        Raises
        ------
        InvalidParameterError
            If there are no messages, or one has another form than ``role`` and ``content``.
        InvalidTextError
            If the template does not take these messages, or a content is not a str.
        """
        check_messages(messages)
        try:
            return self._template.render(
                messages=[dict(message) for message in messages], add_generation_prompt=True
            )
        except TemplateError as error:
            raise InvalidTextError(
                f"the model's chat template refuses these messages: {error}"
            ) from error


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse messages that are not of the documented form.

    Raises
    ------
    InvalidParameterError
        If there are none, or one has another form than ``role`` and ``content``.
    InvalidTextError
        If a content is not a str.
    """
    if not messages:
        raise InvalidParameterError("messages is empty: there must be at least one")
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise InvalidParameterError(f"role={shown(role)}: must be one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise InvalidTextError(f"a message's content must be a str, not {type(content)}")


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
