"""Power loss, death, I/O errors and a full disk at every operation of a scripted life."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.storage.faulty import ROOT, Faults, PowerLossError, SimulatedDisk, outcomes
from vecdb.errors import DiskFullError, ReadOnlyError, StorageIOError, VecdbError
from vecdb.storage import FileRef, ManifestLog, PosixStore, Store, Wal, file_refs
from vecdb.storage.store import Durability

FILE_BYTES = 4_000


@dataclass
class Promises:
    """What the script was told, and what it tried without being told."""

    acknowledged: dict[int, bytes] = field(default_factory=dict)
    tried: dict[int, set[bytes]] = field(default_factory=dict)
    manifest: int = 0
    bodies: list[dict[str, object]] = field(default_factory=list)


def file_ref(name: str, data: bytes) -> FileRef:
    return FileRef(name, len(data), hashlib.sha256(data).hexdigest())


class Life:
    """A small engine of one WAL and one manifest; each step can be the last."""

    def __init__(self, store: Store, promises: Promises) -> None:
        self.promises = promises
        self.held = store.lock()
        store.discard_unfinished()
        self.store = store
        self.manifests = ManifestLog.open(store.within("manifest"))
        latest = self.manifests.latest
        self.body: dict[str, object] = dict(latest.body) if latest else {"applied": 0, "files": []}
        self.applied = int(str(self.body["applied"]))
        self.wal = Wal.open(store.within("wal"), after_seq=self.applied, file_bytes=FILE_BYTES)
        self.records = {r.seq: r.body for r in self.wal.replay(self.applied)}
        self.refs = list(file_refs(self.body))
        for name in store.list("segments"):
            if name not in {ref.name for ref in self.refs}:
                store.delete(name)

    def write(self, *bodies: bytes) -> None:
        first = self.wal.last_seq + 1
        batch = dict(enumerate(bodies, first))
        for seq, body in batch.items():
            self.promises.tried.setdefault(seq, set()).add(body)
        self.wal.append([(1, body) for body in bodies])
        self.records.update(batch)
        self.promises.acknowledged.update(batch)

    def seal(self) -> None:
        """Move the WAL's records into a file, as a segment does, then let the WAL go."""
        self.wal.rotate()
        last = max(self.records)
        name = f"segments/{last:06d}"
        data = json.dumps({seq: body.hex() for seq, body in self.records.items()}).encode()
        self.store.put(name, data)
        self.refs.append(file_ref(name, data))
        self.publish(last)
        self.records.clear()
        self.wal.drop_through(last)

    def merge(self) -> None:
        """Write all files as one and delete them."""
        merged = {
            k: v for ref in self.refs for k, v in json.loads(self.store.read(ref.name)).items()
        }
        data = json.dumps(merged).encode()
        dropped, number = self.refs, self.promises.manifest + 1
        ref = file_ref(f"segments/m{number:06d}", data)
        self.store.put(ref.name, data)
        self.refs = [ref]
        self.publish(self.applied)
        for old in dropped:
            self.store.delete(old.name)
        self.manifests.prune(1)

    def publish(self, applied: int) -> None:
        body = {"applied": applied, "files": [ref.to_json() for ref in self.refs]}
        self.promises.bodies.append(body)
        self.promises.manifest = self.manifests.publish(body)
        self.applied = applied

    def contents(self) -> dict[int, bytes]:
        """Return every record, wherever it is."""
        stored: dict[int, bytes] = {}
        for ref in self.refs:
            data = self.store.read(ref.name)
            assert file_ref(ref.name, data) == ref
            stored.update({int(k): bytes.fromhex(v) for k, v in json.loads(data).items()})
        return {**stored, **self.records}

    def close(self) -> None:
        self.wal.close()
        self.held.release()


def script(open_store: Callable[[], Store], promises: Promises) -> None:
    life = Life(open_store(), promises)
    life.write(b"one")
    life.write(b"two" * 300, b"three", b"four" * 400)
    life.seal()
    life.write(b"five" * 200)
    life.close()
    life = Life(open_store(), promises)
    life.write(b"six", b"seven" * 150)
    life.seal()
    life.write(b"eight" * 900)
    life.write(b"nine")
    life.merge()
    life.write(b"ten")
    life.close()


def check(disk: SimulatedDisk, promises: Promises, durability: Durability = "disk") -> Life:
    life = Life(PosixStore(ROOT, durability, disk), promises)
    contents = life.contents()
    for seq, body in promises.acknowledged.items():
        assert contents.get(seq) == body, f"record {seq} was acknowledged and is gone"
    for seq, body in contents.items():
        assert body in promises.tried[seq], f"record {seq} was never written so"
    latest = life.manifests.latest
    assert (latest.number if latest else 0) >= promises.manifest
    if latest is not None:
        assert latest.body in promises.bodies
    return life


def run(disk: SimulatedDisk, durability: Durability = "disk") -> Promises:
    promises = Promises()
    with suppress(PowerLossError):
        script(lambda: PosixStore(ROOT, durability, disk), promises)
    return promises


def count_calls() -> int:
    disk = SimulatedDisk()
    run(disk)
    return disk.calls


CALLS = count_calls()


@pytest.mark.parametrize("stop_at", range(CALLS + 1))
def test_power_loss_at_every_call_loses_nothing_acknowledged(stop_at: int) -> None:
    disk = SimulatedDisk(Faults(stop_at=stop_at))
    promises = run(disk)
    for keep in outcomes(stop_at):
        survivor = disk.after_power_loss(keep)
        life = check(survivor, promises)
        life.write(b"after")  # and the log goes on from there
        seen = life.contents()
        again = check(survivor.after_power_loss(lambda: False), promises)
        assert again.contents() == seen
        promises.acknowledged = {k: v for k, v in promises.acknowledged.items() if v != b"after"}


@pytest.mark.parametrize("stop_at", range(CALLS + 1))
def test_what_was_read_after_kill_survives_a_later_power_loss(stop_at: int) -> None:
    disk = SimulatedDisk(Faults(stop_at=stop_at))
    promises = run(disk)
    killed = disk.after_kill()
    seen = check(killed, promises).contents()
    for keep in outcomes(stop_at):
        assert check(killed.after_power_loss(keep), promises).contents() == seen


@pytest.mark.parametrize("error_at", range(CALLS))
def test_an_io_error_at_any_call_is_reported_and_loses_nothing(error_at: int) -> None:
    disk = SimulatedDisk(Faults(error_at=error_at))
    promises = Promises()
    store = PosixStore(ROOT, calls=disk)
    with suppress(StorageIOError):
        script(lambda: store, promises)
    restarted = disk.after_kill()
    seen = check(restarted, promises).contents()
    for keep in outcomes(error_at):
        assert check(restarted.after_power_loss(keep), promises).contents() == seen


@pytest.mark.parametrize("full_from", range(0, CALLS, 3))
def test_a_full_disk_is_reported_and_writes_go_on_when_there_is_room(full_from: int) -> None:
    disk = SimulatedDisk(Faults(full_from=full_from))
    promises = Promises()
    store = PosixStore(ROOT, calls=disk)
    with suppress(DiskFullError):
        script(lambda: store, promises)
    full = disk.after_kill()
    full.faults = Faults(full_from=-1)
    life = check(full, promises)  # it opens, and everything can be read
    seen = life.contents()
    with pytest.raises(DiskFullError):
        life.write(b"no room")
    full.faults = Faults()
    life.write(b"room")
    life.seal()
    seen = life.contents()
    for keep in outcomes(full_from):
        assert check(full.after_power_loss(keep), promises).contents() == seen


def test_after_a_failed_sync_nothing_is_written() -> None:
    disk = SimulatedDisk()
    life = Life(PosixStore(ROOT, calls=disk), Promises())
    life.write(b"one")
    disk.faults = Faults(error_at=disk.calls + 1)  # the write, then its sync
    with pytest.raises(StorageIOError):
        life.write(b"two")
    calls = disk.calls
    with pytest.raises(ReadOnlyError, match="open the data directory again"):
        life.write(b"three")
    assert disk.calls == calls


# Negative controls: the sweeps find it when a promise is not kept.


class ForgetfulNames(SimulatedDisk):
    """A disk whose directories are never synced, as with a store that forgets to."""

    def sync_directory(self, path: Path) -> None:
        self._change("sync directory", path)


class TornNames(SimulatedDisk):
    """A disk on which giving a file its name copies it, as a move between file systems does."""

    def link(self, source: Path, target: Path) -> None:
        content = self.read(source, 0, -1)
        self.write(self.create(target), [memoryview(content)])


def is_broken(disk: SimulatedDisk, durability: Durability, seed: int) -> bool:
    promises = run(disk, durability)
    for keep in outcomes(seed):
        try:
            check(disk.after_power_loss(keep), promises, durability)
        except (AssertionError, VecdbError):
            return True
    return False


@pytest.mark.parametrize(
    ("kind", "durability"),
    [(SimulatedDisk, "os"), (ForgetfulNames, "disk"), (TornNames, "disk")],
    ids=["no fsync", "no directory fsync", "no atomic names"],
)
def test_the_sweep_finds_a_broken_promise(
    kind: type[SimulatedDisk], durability: Durability
) -> None:
    faults = (Faults(stop_at=stop_at) for stop_at in range(1, CALLS))
    assert any(is_broken(kind(fault), durability, 7) for fault in faults)
