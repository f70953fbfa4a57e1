"""The commands of whoever runs a database for others: info, backup, backups, restore."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vecdb.cli_options import (
    bytes_shown,
    connected,
    database_options,
    is_server,
    options_with_timeout,
    reported,
    say,
)
from vecdb.errors import NotFoundError

if TYPE_CHECKING:
    from vecdb.types import BackupInfo, CollectionInfo

_DAY = 86_400.0


@click.command()
@click.argument("collection", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each collection.")
@database_options
@reported
def info(
    collection: str | None, as_json: bool, target: str, api_key: str | None, timeout: float
) -> None:
    """Show a collection, or all: points, segments, sizes, and what runs in the background."""
    with connected(target, api_key, timeout) as database:
        for name in [collection] if collection else database.list_collections():
            found = database.collection(name).info()
            if as_json:
                say(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
            else:
                say("\n".join(info_lines(found)))


def info_lines(info: CollectionInfo) -> list[str]:
    """Return what there is to say of a collection, in lines."""
    made_by = "" if info.encoder is None else f", texts by {info.encoder.model}"
    sizes = f"on disk {_size(info.disk_bytes)}, {_size(info.log_bytes)} of it the log"
    lines = [
        f"{info.name}: {info.count} points of {info.dim} dimensions, {info.metric}{made_by}",
        f"  {sizes}; {info.growing_rows} rows not sealed yet; {info.indexed} points indexed",
    ]
    for number, segment in enumerate(info.closed_segments, 1):
        state = "indexed" if segment.indexed else "searched row by row"
        lines.append(
            f"  segment {number}: {segment.live_rows} of {segment.rows} rows live, "
            f"{_size(segment.disk_bytes)}, {state}"
        )
    lines += [f"  now: {work.kind} of {work.rows} rows, {work.done:.0%} done" for work in info.work]
    for lost in info.quarantined:
        accepted = "its loss accepted" if lost.accepted else "not served"
        lines.append(f"  DAMAGED, {accepted}: {lost.part}: {lost.reason}")
    return lines


@click.command()
@click.argument("directory")
@click.option("--keep", type=int, help="Delete all backups but the newest KEEP afterwards.")
@options_with_timeout(_DAY)
@reported
def backup(
    directory: str, keep: int | None, target: str, api_key: str | None, timeout: float
) -> None:
    """Add a backup to DIRECTORY, copying only what no earlier backup there has.

    With a server, DIRECTORY is a name below the server's own --backup-dir; with --db DATA, where
    no server has DATA open, it is a path. Reads and writes go on meanwhile.
    """
    with connected(target, api_key, timeout) as database:
        if is_server(target):
            taken = database.backup(directory, keep=keep, timeout=timeout)
        else:
            from vecdb.storage import PosixStore

            with bytes_shown("copying") as step:
                taken = database.backup_to(PosixStore.at(directory), keep=keep, step=step)
    say(backup_line(taken))


@click.command()
@click.argument("directory")
@click.option("--db", "target", help="A server's URL; DIRECTORY is then a name there.")
@click.option("--api-key", envvar="VECDB_API_KEY", help="Of the server; also from VECDB_API_KEY.")
@click.option("--verify", is_flag=True, help="Also read every byte (of a directory, not a server).")
@reported
def backups(directory: str, target: str | None, api_key: str | None, verify: bool) -> None:
    """List the backups in DIRECTORY; with status 1 when one of them cannot be restored."""
    found = _listed(directory, target, api_key, verify=verify)
    for one in found:
        say(backup_line(one))
    if not found:
        say(f"there are no backups in {directory}")
    if any(one.damage for one in found):
        sys.exit(1)


def _listed(
    directory: str, target: str | None, api_key: str | None, *, verify: bool
) -> list[BackupInfo]:
    if target is None:
        from vecdb.backup import list_backups

        if not Path(directory).is_dir():
            raise NotFoundError(f"{directory!r}: there is no such directory")
        with bytes_shown("reading") as step:
            return list_backups(directory, verify=verify, step=step)
    if verify or not is_server(target):
        raise click.UsageError(
            "--verify reads a directory of this machine, so it goes without --db"
            if verify
            else f"--db {target}: must be a server's URL; a directory is listed without --db"
        )
    options: dict[str, Any] = {"api_key": api_key}
    from vecdb_client import Client

    with Client(target, **options) as database:
        return database.list_backups(directory)


def backup_line(info: BackupInfo) -> str:
    """Return what there is to say of a backup."""
    if info.damage is not None:
        return f"{info.number}  DAMAGED: {info.damage}"
    taken = "" if info.taken is None else info.taken.strftime("%Y-%m-%d %H:%M:%S UTC")
    points = ", ".join(f"{name} {count}" for name, count in info.points.items())
    return (
        f"{info.number}  {taken}  {info.files} files, {_size(info.bytes)} "
        f"({info.new_files} new, {_size(info.new_bytes)}); points: {points or 'no collections'}"
    )


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("data", type=click.Path(path_type=Path, file_okay=False))
@click.option("--number", type=int, help="Which backup; the newest unless given.")
@click.option("--replace", is_flag=True, help="Put it in the place of what DATA holds.")
@reported
def restore(directory: Path, data: Path, number: int | None, replace: bool) -> None:
    """Make the data directory DATA of a backup in DIRECTORY, whole or not at all.

    Every byte is compared, and every collection opened, before anything in DATA counts.
    """
    from vecdb.restoring import restore_backup

    with bytes_shown("restoring") as step:
        restored = restore_backup(directory, data, number=number, replace=replace, step=step)
    say(f"restored to {data}: {backup_line(restored)}")


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{count:.3g} {unit}"
        count /= 1_000  # type: ignore[assignment]
    return f"{count:.4g} TB"
