"""`vecdb check --repair`: what it gives up is named and set aside, at whatever call it stops."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.storage.faulty import ROOT, Faults, PowerLossError, SimulatedDisk, outcomes
from vecdb.errors import StorageIOError
from vecdb.storage import (
    CheckReport,
    Delete,
    ManifestLog,
    PosixStore,
    Severity,
    Upsert,
    Wal,
    check_directory,
    encode_operation,
    write_sections,
    write_segment,
    write_tombstones,
)

DATA = "c000001/segments/0000000001.data"
DEAD = "c000001/segments/0000000001.1.dead"
INDEX = "c000001/segments/0000000001.index"
LOGS = [f"c000001/wal/{n:020d}.wal" for n in (5, 7, 9)]
Change = Callable[[bytes], bytes]


def make(store: PosixStore) -> None:
    """Write a collection of two segments, the first with everything, and a log of three files."""
    ManifestLog.open(store.within("catalog")).publish(
        {"collections": {"docs": {"dir": "c000001", "settings": {}}}, "next_dir": 2}
    )
    docs = store.within("c000001")
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    data = write_segment(docs, DATA[8:], [1, "two", 3, 4], vectors, ["a", None, "c", "d"])
    dead = write_tombstones(docs, DEAD[8:], np.array([True, False, False, False]))
    index = write_sections(docs, INDEX[8:], {"x": vectors}, kind="hnsw")
    other = write_segment(docs, "segments/0000000002.data", [5], vectors[:1])
    segments = [
        {"id": 1, "data": data.to_json(), "index": index.to_json(),
         "tombstones": dead.to_json(), "dead": 1},
        {"id": 2, "data": other.to_json(), "index": None, "tombstones": None, "dead": 0},
    ]  # fmt: skip
    ManifestLog.open(docs.within("manifest")).publish(
        {"next_segment": 3, "applied_seq": 4, "segments": segments}
    )
    wal = Wal.open(docs.within("wal"), after_seq=4)
    for n in range(3):
        wal.append([encode_operation(Upsert([10 + n, f"s{n}"], vectors[:2]))])
        wal.append([encode_operation(Delete([10 + n]))])
        if n < 2:
            wal.rotate()
    wal.close()


def simulated(*damage: tuple[str, Change]) -> tuple[SimulatedDisk, PosixStore]:
    disk = SimulatedDisk()
    store = PosixStore(ROOT, calls=disk)
    make(store)
    for name, change in damage:
        disk.corrupt(ROOT / name, change)
    return disk, store


def flip(data: bytes) -> bytes:
    """Flip two bits in the first section: one alone would be mended."""
    return data[:65] + bytes([data[65] ^ 4, data[66] ^ 1]) + data[67:]


def body(store: PosixStore) -> dict[str, object]:
    latest = ManifestLog.open(store.within("c000001/manifest")).latest
    assert latest is not None
    return latest.body


def findings(report: CheckReport) -> list[tuple[Severity, str]]:
    return [(f.severity, f.file) for f in report.findings]


def records(store: PosixStore) -> list[int]:
    wal = Wal.open(store.within("c000001/wal"), after_seq=4)
    try:
        return [record.seq for record in wal.replay(4)]
    finally:
        wal.close()


def ids_in(store: PosixStore, name: str) -> list[object]:
    ids: list[object] = json.loads(store.read(f"c000001/quarantine/{name}"))
    return ids


@pytest.mark.parametrize(
    ("name", "change", "ids"),
    [
        (DATA, flip, ["two", 3, 4]),  # the vectors: the ids can still be read
        (DATA, lambda data: data[:100], None),
        (DATA, lambda _: b"", None),
        (DEAD, flip, None),
    ],
)
def test_a_damaged_segment_is_set_aside_and_named(
    name: str, change: Change, ids: list[object] | None
) -> None:
    _, store = simulated((name, change))
    whole = {file: store.read(file) for file in (DATA, DEAD)}
    assert not check_directory(store).ok
    report = check_directory(store, repair=True)
    assert findings(report) == [(Severity.LOST, DATA)]
    assert report.ok
    assert report.lost
    assert "segment 1 with" in str(report)
    assert "1 given up, as named above; everything else can be read" in str(report)
    segments = body(store)["segments"]
    assert isinstance(segments, list)
    assert [segment["id"] for segment in segments] == [2]
    for file, data in whole.items():
        assert store.read(file.replace("segments", "quarantine")) == data
        assert not store.exists(file)
    assert not store.exists(INDEX)
    (entry,) = body(store)["quarantined"]  # type: ignore[misc]
    assert entry["part"] == "segment 1"
    if ids is not None:
        assert "with 3 points" in str(report)
        assert ids_in(store, "0000000001.ids") == ids
    for _ in range(2):
        again = check_directory(store, repair=True)
        assert again.ok
        assert not again.lost
        assert "segment 1 was given up by an earlier repair" in str(again)
    assert body(store)["quarantined"] == [entry]


def test_a_damaged_index_is_dropped() -> None:
    _, store = simulated((INDEX, flip))
    assert check_directory(store).ok
    report = check_directory(store, repair=True)
    assert findings(report) == [(Severity.REPAIRED, "c000001")]
    assert not report.lost
    assert not store.exists(INDEX)
    assert "quarantined" not in body(store)
    assert check_directory(store, repair=True).findings == []


def test_what_a_newer_vecdb_wrote_is_not_given_up() -> None:
    def newer(data: bytes) -> bytes:
        from vecdb.storage.prologue import prologue

        return prologue(data[:8], 2) + data[16:]

    _, store = simulated((DATA, newer), (LOGS[1], newer))
    report = check_directory(store, repair=True, cut_wal=True)
    assert not report.ok
    assert not report.lost
    assert store.exists(DATA)
    assert store.exists(LOGS[1])


def test_what_a_lost_replacement_deleted_is_named_too() -> None:
    disk, store = simulated()
    wal = Wal.open(store.within("c000001/wal"), after_seq=4)
    replacement = Upsert([20], np.ones((1, 2), np.float32), deleted=["gone", 21])
    wal.append([encode_operation(replacement)])
    wal.close()
    assert check_directory(store).ok
    disk.corrupt(ROOT / LOGS[0], flip)
    report = check_directory(store, repair=True, cut_wal=True)
    assert "6 writes of 5 points in it can be read" in str(report)
    assert ids_in(store, "log-5.ids") == [10, 11, "s1", 12, "s2", 20, "gone", 21]


@pytest.mark.parametrize(
    ("name", "change", "left", "lost"),
    [
        (LOGS[0], flip, [], [10, 11, "s1", 12, "s2"]),
        (LOGS[0], lambda data: data[:20], [], [11, "s1", 12, "s2"]),
        (LOGS[1], lambda data: data[:-10], [5, 6, 7], [12, "s2"]),
        (LOGS[2], flip, [5, 6, 7, 8], [12]),
        (LOGS[2], lambda data: data[:40], [5, 6, 7, 8], None),  # closed later than that
        (LOGS[2], None, [5, 6, 7, 8], None),
        (LOGS[1], None, [5, 6], [12, "s2"]),
    ],
)
def test_a_damaged_log_is_cut_only_when_told_to(
    name: str, change: Change | None, left: list[int], lost: list[object] | None
) -> None:
    disk, store = simulated()
    if change is None:
        store.delete(name)
    else:
        disk.corrupt(ROOT / name, change)
    before = {file: store.read(file) for file in LOGS if store.exists(file)}
    report = check_directory(store, repair=True)
    assert not report.ok
    assert "--cut-wal" in str(report)
    assert {file: store.read(file) for file in LOGS if store.exists(file)} == before
    report = check_directory(store, repair=True, cut_wal=True)
    assert report.ok
    assert [f.severity for f in report.findings] == [Severity.LOST]
    first = left[-1] + 1 if left else 5
    assert f"records {first} to 10, {10 - first + 1} in all, are given up" in str(report)
    assert records(store) == left
    if lost is not None:
        assert ids_in(store, f"log-{first}.ids") == lost
    kept = [store.read(file) for file in store.list("c000001/quarantine")]
    damaged = [data for file, data in before.items() if file >= name and len(data) != 40]
    assert all(data in kept for data in damaged)
    again = check_directory(store, repair=True, cut_wal=True)
    assert again.ok
    assert not again.lost
    (entry,) = body(store)["quarantined"]  # type: ignore[misc]
    assert (entry["part"], entry["points"]) == (f"log from record {first}", 10 - first + 1)
    wal = Wal.open(store.within("c000001/wal"), after_seq=4)
    assert wal.append([encode_operation(Delete([1]))]) >= first
    wal.close()
    assert check_directory(store).ok


def test_two_cuts_keep_the_files_of_both() -> None:
    disk, store = simulated((LOGS[2], flip))
    check_directory(store, repair=True, cut_wal=True)
    wal = Wal.open(store.within("c000001/wal"), after_seq=4)
    wal.append([encode_operation(Delete([1]))])
    wal.append([encode_operation(Delete([2]))])
    wal.close()
    last = max(file for file in store.list("c000001/wal") if file.endswith(".wal"))
    disk.corrupt(ROOT / last, flip)
    assert check_directory(store, repair=True, cut_wal=True).lost
    kept = [n for n in store.list("c000001/quarantine") if "wal" in n]
    assert len(kept) == 2
    assert len(body(store)["quarantined"]) == 2  # type: ignore[arg-type]


DAMAGE: list[list[tuple[str, Change]]] = [
    [(DATA, flip), (LOGS[0], flip)],
    [(DEAD, flip), (LOGS[1], lambda data: data[:-10]), (INDEX, flip)],
    [(DATA, lambda _: b""), (LOGS[2], flip), ("catalog/0000000001.json", lambda _: b"")],
]


def repaired(store: PosixStore) -> CheckReport:
    return check_directory(store, repair=True, cut_wal=True)


def state(store: PosixStore) -> tuple[object, object, list[int]]:
    """Return what the collection consists of now."""
    found = body(store)
    quarantined = found["quarantined"]
    assert isinstance(quarantined, list)
    return found["segments"], {entry["part"] for entry in quarantined}, records(store)


@pytest.mark.parametrize("fault", ["stop_at", "error_at"])
def test_a_repair_that_is_cut_short_is_finished_by_the_next(fault: str) -> None:
    sweep(DAMAGE[1], fault, every=3)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("fault", ["stop_at", "error_at"])
def test_repairs_of_everything_that_are_cut_short(
    damage: list[tuple[str, Change]], fault: str
) -> None:
    sweep(damage, fault)


def sweep(damage: list[tuple[str, Change]], fault: str, every: int = 1) -> None:
    """Stop a repair at each call, or at every few of them, and let another one follow."""
    disk, store = simulated(*damage)
    start = disk.calls
    repaired(store)
    calls = disk.calls - start
    expected = state(store)
    for call in range(0, calls, every):
        disk, store = simulated(*damage)
        held = {disk.read(ROOT / n, 0, -1) for n, _ in damage if n.startswith("c0") and n != INDEX}
        disk.faults = Faults(**{fault: disk.calls + call})
        with suppress(PowerLossError, StorageIOError):
            repaired(PosixStore(ROOT, calls=disk))
        survivors = [disk.after_kill()]
        survivors += [disk.after_power_loss(keep) for keep in outcomes(call)]
        for survivor in survivors:
            after = PosixStore(ROOT, calls=survivor)
            assert repaired(after).ok
            assert state(after) == expected
            kept = {survivor.read(ROOT / file, 0, -1) for file in after.list()}
            assert held <= kept, "a damaged file is gone"


def test_the_sweep_finds_a_deletion_in_place_of_a_move(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: PosixStore, name: str, target: str) -> None:
        data = self.read(name)
        self.delete(name)
        self.put(target, data)

    monkeypatch.setattr(PosixStore, "move", forgetful)
    with pytest.raises(AssertionError, match="is gone"):
        sweep(DAMAGE[0], "stop_at")


def test_moving_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    from vecdb.errors import AlreadyExistsError, StoredFileNotFoundError

    store = PosixStore(tmp_path)
    store.put("a", b"1")
    store.put("b/c", b"2")
    with pytest.raises(AlreadyExistsError):
        store.move("a", "b/c")
    with pytest.raises(StoredFileNotFoundError):
        store.move("x", "y")
    store.move("a", "d/e/f")
    assert store.list() == ["b/c", "d/e/f"]
    assert store.read("d/e/f") == b"1"


def test_moving_is_safe_at_every_call() -> None:
    for call in itertools.count():
        disk = SimulatedDisk()
        store = PosixStore(ROOT, calls=disk)
        store.put("a", b"1")
        disk.faults = Faults(stop_at=disk.calls + call)
        done = False
        with suppress(PowerLossError):
            store.move("a", "b/c")
            done = True
        for keep in outcomes(call):
            after = PosixStore(ROOT, calls=disk.after_power_loss(keep))
            assert {after.read(name) for name in after.list()} == {b"1"}
            if done:
                assert after.list() == ["b/c"]
        if done:
            return
