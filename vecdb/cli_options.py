"""What several commands have in common."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from vecdb.config import DEFAULT_PORT, MIN_FREE_BYTES
from vecdb.errors import InvalidParameterError, NotFoundError, VecdbError
from vecdb.sizes import parse_size

F = TypeVar("F", bound=Callable[..., Any])
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and line ends


class _Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, written as people write it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_size(value)
        except InvalidParameterError as error:
            self.fail(str(error), param, ctx)


class KeyType(click.types.StringParamType):
    """An API key. Blanks may be in it, so an environment variable holds one, not several."""

    name = "text"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the variable's value as the only key."""
        return [rv]


def space_options(command: F) -> F:
    """Say how much a data directory may take."""
    for option in (
        click.option(
            "--min-free", "min_free_bytes", type=_Size(), show_default=True,
            default=f"{MIN_FREE_BYTES.default >> 20}MiB",
            help="Likewise when the file system has less left; deletes and merging may use it.",
        ),
        click.option(
            "--max-memory", "max_memory_bytes", type=_Size(),
            help="Likewise when points that are in no segment file yet take more memory.",
        ),
        click.option(
            "--max-disk", "max_disk_bytes", type=_Size(),
            help="Refuse to grow when the data directory holds more, such as 20GB or 512MiB.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def reported(command: F) -> F:
    """Let a command end with a one-line message and status 1 when vecdb raises."""

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except VecdbError as error:
            raise click.ClickException(printable(str(error))) from error

    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    if hasattr(command, "__click_params__"):
        run.__click_params__ = command.__click_params__  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def printable(text: str) -> str:
    r"""Return text without what a terminal obeys: control characters as ``\u001b``, like in JSON.

    What documents, payloads and servers hold reaches the terminal of whoever looks at it.
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def say(text: str = "", *, nl: bool = True, err: bool = False) -> None:
    """Write a piece of a command's result; a reader that has gone ends the command quietly."""
    try:
        click.echo(printable(text), nl=nl, err=err)
    except OSError as error:
        if error.errno == errno.EPIPE:  # click sees to it
            raise
        raise click.ClickException(f"cannot write the output: {error.strerror}") from error


def options_with_timeout(timeout: float) -> Callable[[F], F]:
    """Return what lets a command be told which database it works on, and how long it may take."""

    def decorate(command: F) -> F:
        for option in (
            click.option(
                "--timeout", type=float, default=timeout, show_default=True,
                help="Seconds a call to a server may take.",
            ),
            click.option(
                "--api-key", envvar="VECDB_API_KEY", help="Of the server; also from VECDB_API_KEY."
            ),
            click.option(
                "--db", "target", default=f"grpc://127.0.0.1:{DEFAULT_PORT}", show_default=True,
                help="A server's URL, or a data directory that no server has open.",
            ),
        ):  # fmt: skip
            command = option(command)
        return command

    return decorate


database_options = options_with_timeout(300.0)


@contextmanager
def connected(
    target: str, api_key: str | None, timeout: float, *, make: bool = False
) -> Iterator[Any]:
    """Open the database that a command works on; `make` one in an existing directory without."""
    import vecdb

    if is_server(target):
        options: dict[str, Any] = {"api_key": api_key, "timeout": timeout}
    elif Path(target).is_dir():
        options = {}
        if not make:
            refuse_other_directory(Path(target))
    else:
        raise click.ClickException(
            f"{target!r} is neither a directory nor a URL like grpc://127.0.0.1:{DEFAULT_PORT}"
        )
    with vecdb.connect(target, **options) as database:
        yield database


def refuse_other_directory(directory: Path) -> None:
    """Keep a command that only reads from taking any directory for an empty database.

    Raises
    ------
    NotFoundError
        If it holds no database.
    """
    from vecdb.catalog import is_data_directory

    if not is_data_directory(directory):
        raise NotFoundError(
            f"{str(directory)!r} holds no collections of vecdb: name the directory that `vecdb "
            "serve --data` or `vecdb ingest --db` was given"
        )


def is_server(target: str) -> bool:
    """Return whether `target` is a server's URL and not a directory."""
    return target.startswith(("grpc://", "grpcs://"))


@contextmanager
def bytes_shown(label: str) -> Iterator[Callable[[int], None]]:
    """Show how many bytes have gone by, when the output is a terminal."""
    from tqdm import tqdm

    with tqdm(desc=label, unit="B", unit_scale=True, disable=None) as bar:

        def step(count: int) -> None:
            bar.update(count)

        yield step
