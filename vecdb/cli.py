"""The command line: serve, demo, models, ingest, search, ask, check, and those of `cli_*`.

Each command imports what it needs when it runs, so that ``--help`` is immediate.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vecdb.cli_admin import backup, backups, info, restore
from vecdb.cli_bench import bench
from vecdb.cli_options import (
    KeyType,
    connected,
    database_options,
    refuse_other_directory,
    reported,
    say,
    space_options,
)
from vecdb.config import (
    ANSWER_K,
    ANSWER_TOKENS,
    CHUNK_TOKENS,
    DEFAULT_ENCODER,
    DEFAULT_PORT,
    SCRUB_BYTES_PER_SECOND,
    SCRUB_SECONDS,
    K,
)
from vecdb.errors import CollectionNotFoundError, InvalidFilterError, MissingDependencyError
from vecdb.version import VERSION

if TYPE_CHECKING:
    from vecdb.types import Citation, Hit, Source

_SNIPPET_CHARS = 240
_EXIT_LOST = 3


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="vecdb")
def main() -> None:
    """Run or use a vector database with a language model on each side of it."""


@main.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The data directory.")
@click.option(
    "--listen",
    default=f"127.0.0.1:{DEFAULT_PORT}",
    show_default=True,
    help="HOST:PORT; port 0 takes a free one. Off loopback TLS and a key are required.",
)
@click.option("--encoder", help="An encoder to load at the start, not at its first use.")
@click.option(
    "--decoder",
    help="Who answers: a model's name, or the URL of an OpenAI-compatible endpoint.",
)
@click.option(
    "--decoder-api-key",
    envvar="VECDB_DECODER_API_KEY",
    help="For that endpoint; also from VECDB_DECODER_API_KEY.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the models run.",
)
@click.option(
    "--api-key",
    "api_keys",
    type=KeyType(),
    multiple=True,
    envvar="VECDB_API_KEY",
    help="A key that callers must show; may be repeated; or one, from VECDB_API_KEY.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's key, PEM.")
@click.option(
    "--tls-client-ca",
    type=click.Path(path_type=Path),
    help="Ask callers for a certificate signed by one of these, PEM.",
)
@click.option(
    "--backup-dir",
    type=click.Path(path_type=Path),
    help="Let callers have backups put below this directory of the server's machine.",
)
@click.option(
    "--scrub-seconds",
    type=int,
    default=SCRUB_SECONDS.default,
    show_default=True,
    help="How often all files are read again to find what the disk has changed; 0 for never.",
)
@click.option(
    "--scrub-bytes-per-second",
    type=int,
    default=SCRUB_BYTES_PER_SECOND.default,
    show_default=True,
    help="How fast.",
)
@click.option("--insecure", is_flag=True, help="Listen off loopback without TLS or keys.")
@space_options
@reported
def serve(
    data: Path, listen: str, encoder: str | None, decoder: str | None,
    decoder_api_key: str | None, device: str, api_keys: tuple[str, ...], tls_cert: Path | None,
    tls_key: Path | None, tls_client_ca: Path | None, backup_dir: Path | None,
    scrub_seconds: int, scrub_bytes_per_second: int, insecure: bool,
    max_disk_bytes: int | None, max_memory_bytes: int | None, min_free_bytes: int,
) -> None:  # fmt: skip
    """Serve a data directory over gRPC until SIGTERM or Ctrl-C.

    Once calls are taken, prints "listening on URL".
    """
    from vecdb_server import ServerConfig
    from vecdb_server import serve as run

    config = ServerConfig(
        data=data, listen=listen, encoder=encoder, decoder=decoder,
        decoder_api_key=decoder_api_key, device=device, api_keys=api_keys, tls_cert=tls_cert,
        tls_key=tls_key, tls_client_ca=tls_client_ca, backup_dir=backup_dir, insecure=insecure,
        max_disk_bytes=max_disk_bytes, max_memory_bytes=max_memory_bytes,
        min_free_bytes=min_free_bytes,
        scrub_seconds=scrub_seconds, scrub_bytes_per_second=scrub_bytes_per_second,
    )  # fmt: skip
    scheme = "grpc" if tls_cert is None else "grpcs"
    run(config, lambda address: say(f"listening on {scheme}://{address}"))


@main.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="Where the demo keeps its collection; a second run finds it there.",
)
@reported
def demo(data: Path) -> None:
    """Serve, ingest real text, search it and answer four questions, the last of which it cannot."""
    from vecdb.demo import run_demo

    run_demo(data)


@main.group()
def models() -> None:
    """List and fetch the models that vecdb knows by name."""


@models.command("list")
@reported
def list_models() -> None:
    """List the models, their sizes, licences and whether they are on this machine."""
    from vecdb.registry.models import is_cached
    from vecdb.registry.models import list_models as known

    for model in known():
        here = "here" if all(is_cached(file) for file in model.files) else "not here"
        say(f"{model.name:24} {model.role:8} {model.size / 1e6:7.1f} MB  {model.licence:12} {here}")


@models.command()
@click.argument("names", nargs=-1)
@reported
def pull(names: tuple[str, ...]) -> None:
    """Fetch models by name, or all of them; each file's SHA-256 is checked.

    Their graphs are made as well, so that the cache may be read-only from then on.
    """
    from vecdb.models import Models
    from vecdb.registry.models import fetch_all, find_model
    from vecdb.registry.models import list_models as known

    for model in [find_model(name) for name in names] or known():
        for name, path in fetch_all(model).items():
            say(f"{model.name}: {name} is in {path.parent}")
        with closing(Models(decoder=model.name)) as loaded:
            try:
                if model.role == "encoder":
                    loaded.encoder(model.name)
                else:
                    loaded.chat()
            except MissingDependencyError as error:
                say(f"{model.name}: fetched only: {error}")


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--collection", "-c", required=True, help="Into which; made if it is not there.")
@click.option("--encoder", default=DEFAULT_ENCODER, show_default=True, help="For a new collection.")
@click.option(
    "--chunk-tokens",
    type=int,
    default=CHUNK_TOKENS.default,
    show_default=True,
    help="The length of a passage, in the encoder's tokens.",
)
@click.option(
    "--prune", is_flag=True, help="Also delete the given folders' documents whose files are gone."
)
@database_options
@reported
def ingest(
    paths: tuple[Path, ...], collection: str, encoder: str, chunk_tokens: int, prune: bool,
    target: str, api_key: str | None, timeout: float,
) -> None:  # fmt: skip
    """Write files and folders into a collection: .txt .md .rst .html .pdf.

    Documents that have not changed are left alone, so an interrupted ingest is simply run again.
    A document is known by its folder's own name and its path below that: so a folder may be moved,
    and two folders of one name replace each other's documents.
    """
    from vecdb.ingest import IngestOptions
    from vecdb.ingest import ingest as run

    with connected(target, api_key, timeout, make=True) as database:
        try:
            points = database.collection(collection)
        except CollectionNotFoundError:
            points = database.create_collection(collection, encoder=encoder)
        options = IngestOptions(chunk_tokens=chunk_tokens)
        report = run(list(paths), points, options, prune=prune)
        points.flush()
    for file in report.skipped:
        say(f"skipped {file.name}: {file.reason}", err=True)
    for file in report.failed:
        say(f"failed {file.name}: {file.reason}", err=True)
    say(
        f"{len(report.added)} added, {len(report.replaced)} replaced, "
        f"{len(report.unchanged)} unchanged, {len(report.failed)} failed; "
        f"{report.chunks} chunks written in {report.seconds:.1f} s"
    )
    if prune and any(file.unreadable for file in report.failed):
        say("nothing was pruned, since a part of what was given cannot be read", err=True)
    elif prune:
        say(f"{report.pruned} chunks of documents that are gone deleted")
    if report.truncated:
        say(
            f"{len(report.truncated)} chunks are longer than the encoder's limit and were embedded "
            "only up to it: pass a smaller --chunk-tokens",
            err=True,
        )
    if report.failed:
        sys.exit(1)


def _parsed_filter(text: str | None) -> dict[str, Any] | None:
    from vecdb.payload.json_value import NotJsonError, decode_json

    if text is None:
        return None
    try:
        condition = decode_json(text)
    except NotJsonError as error:
        raise InvalidFilterError(f"--filter {text!r:.200} is not JSON: {error}") from None
    if not isinstance(condition, dict):
        raise InvalidFilterError(
            f"--filter {text!r:.200} is a JSON {type(condition).__name__}: must be an object, "
            'such as {"year": {"$gte": 2020}}'
        )
    return condition


@main.command()
@click.argument("collection")
@click.argument("query")
@click.option("-k", type=int, default=K.default, show_default=True, help="How many.")
@click.option("--filter", "condition", help='On the payload, as JSON: {"year": {"$gte": 2020}}.')
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each hit.")
@database_options
@reported
def search(
    collection: str, query: str, k: int, condition: str | None, as_json: bool, target: str,
    api_key: str | None, timeout: float,
) -> None:  # fmt: skip
    """Show the points nearest to a text, best first."""
    parsed = _parsed_filter(condition)
    with connected(target, api_key, timeout) as database:
        hits = database.collection(collection).search(query, k=k, filter=parsed)
    for hit in hits:
        say(_json_hit(hit) if as_json else _shown_hit(hit))


def _json_hit(hit: Hit) -> str:
    return json.dumps(
        {"id": hit.id, "score": hit.score, "text": hit.text, "payload": hit.payload},
        ensure_ascii=False,
    )


def _shown_hit(hit: Hit) -> str:
    text = " ".join((hit.text or "").split())
    shown = text if len(text) <= _SNIPPET_CHARS else text[:_SNIPPET_CHARS] + "..."
    return f"{hit.score:.4f}  {hit.id}\n        {shown}"


@main.command()
@click.argument("collection")
@click.argument("question")
@click.option("-k", type=int, default=ANSWER_K.default, show_default=True, help="Passages.")
@click.option("--filter", "condition", help="On the payload, as JSON.")
@click.option(
    "--max-tokens",
    type=int,
    default=ANSWER_TOKENS.default,
    show_default=True,
    help="How long the answer may become.",
)
@click.option(
    "--temperature", type=float, default=0.0, show_default=True, help="0 for the likeliest words."
)
@database_options
@reported
def ask(
    collection: str, question: str, k: int, condition: str | None, max_tokens: int,
    temperature: float, target: str, api_key: str | None, timeout: float,
) -> None:  # fmt: skip
    """Answer a question from a collection's texts, with citations."""
    parsed = _parsed_filter(condition)
    with connected(target, api_key, timeout) as database:
        answer = database.collection(collection).ask(
            question, k=k, filter=parsed, max_tokens=max_tokens, temperature=temperature
        )
        for piece in answer:
            say(piece, nl=False)
        say()
        for line in citation_lines(answer.citations, answer.sources):
            say(line)


def citation_lines(citations: list[Citation], sources: list[Source]) -> list[str]:
    """Return a line for each source that an answer cites, with how well it is supported."""
    lines = []
    for source in sources:
        scores = [c.score for c in citations if c.source == source.number]
        if scores:
            lines.append(f"  [{source.number}] {source.id}  (support {max(scores):.2f})")
    return lines


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--repair",
    is_flag=True,
    help="Mend what can be mended, and take damaged segments out of their collections; what held "
    "points is moved to quarantine/ and never deleted.",
)
@click.option(
    "--cut-wal",
    is_flag=True,
    help="With --repair: give up the acknowledged writes after damage in the write-ahead log.",
)
@reported
def check(directory: Path, repair: bool, cut_wal: bool) -> None:
    """Read every byte of a data directory and say what is damaged.

    Exits with 0 when everything can be read, 1 when something is damaged or the check could not
    run, and 3 when this repair gave something up, which it names.
    """
    from vecdb.storage import PosixStore, check_directory

    if cut_wal and not repair:
        raise click.UsageError("--cut-wal goes with --repair")
    refuse_other_directory(directory)
    report = check_directory(PosixStore(directory), repair=repair, cut_wal=cut_wal)
    say(str(report))
    if not report.ok:
        sys.exit(1)
    if report.lost:
        sys.exit(_EXIT_LOST)


for command in (info, backup, backups, restore, bench):
    main.add_command(command)


if __name__ == "__main__":
    main()
