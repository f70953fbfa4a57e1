"""The models of one database: each loaded when it is first needed, once, and shared."""

from __future__ import annotations

import threading
from pathlib import Path

from vecdb.config import DEFAULT_DECODER
from vecdb.decode import ChatModel, load_chat_model
from vecdb.encode import Encoder, load_encoder
from vecdb.errors import ClosedError, EncoderMismatchError
from vecdb.types import EncoderInfo, LoadedModel


class Models:
    """Loads encoders by name, and the decoder.

    Parameters
    ----------
    decoder
        The name of a registered model, or the URL of an OpenAI-compatible endpoint.
    decoder_api_key
        Sent to that endpoint.
    device
        auto, cpu or cuda.
    cache_dir
        Where model files are kept; by default, the user's cache directory.
    """

    def __init__(
        self,
        *,
        decoder: str = DEFAULT_DECODER,
        decoder_api_key: str | None = None,
        device: str = "auto",
        cache_dir: Path | None = None,
    ) -> None:
        self._decoder_name = decoder
        self._decoder_api_key = decoder_api_key
        self._device = device
        self._cache_dir = cache_dir
        self._encoders: dict[str, Encoder] = {}
        self._chat: ChatModel | None = None
        self._closed = False
        self._loading = threading.Lock()  # protects the fields above; held while one is loaded

    def encoder(self, name: str) -> Encoder:
        """Return the encoder of that name.

        Raises
        ------
        ModelNotFoundError, ModelDigestError, DeviceUnavailableError, MissingDependencyError
        """
        found = self._encoders.get(name)
        if found is not None:
            return found
        with self._loading:
            self._check_open()
            if name not in self._encoders:
                self._encoders[name] = load_encoder(
                    name, device=self._device, cache_dir=self._cache_dir
                )
            return self._encoders[name]

    def encoder_of(self, info: EncoderInfo) -> Encoder:
        """Return the very encoder that a collection's vectors were made with.

        Raises
        ------
        EncoderMismatchError
            If the model of that name is another one now.
        """
        encoder = self.encoder(info.model)
        if encoder.info != info:
            raise EncoderMismatchError(
                f"the collection's vectors were made with {info}, and {info.model!r} is now "
                f"{encoder.info}: restore that model, or write the texts into a new collection"
            )
        return encoder

    def chat(self) -> ChatModel:
        """Return the model that writes answers.

        Raises
        ------
        ModelNotFoundError, ModelDigestError, DeviceUnavailableError, MissingDependencyError
        """
        if self._chat is not None:
            return self._chat
        with self._loading:
            self._check_open()
            if self._chat is None:
                self._chat = load_chat_model(
                    self._decoder_name, device=self._device, cache_dir=self._cache_dir,
                    api_key=self._decoder_api_key,
                )  # fmt: skip
            return self._chat

    def loaded_encoders(self) -> list[LoadedModel]:
        """Return the encoders in memory, and what executes each."""
        return [LoadedModel(name, e.provider) for name, e in sorted(self._encoders.items())]

    def loaded_decoder(self) -> LoadedModel | None:
        """Return the decoder if it is in memory, and what executes it."""
        chat = self._chat
        return None if chat is None else LoadedModel(chat.name, chat.provider)

    def close(self) -> None:
        """Let go of all models."""
        with self._loading:
            self._closed = True
            for encoder in self._encoders.values():
                encoder.close()
            self._encoders.clear()
            if self._chat is not None:
                self._chat.close()
                self._chat = None

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the database was closed: connect again")
