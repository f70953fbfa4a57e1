"""Manifests: the newest counts, and a damaged one is never passed over in silence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.storage.faulty import ROOT, Faults, PowerLossError, SimulatedDisk
from vecdb.errors import (
    AlreadyExistsError,
    CorruptFileError,
    DiskFullError,
    InvalidArgumentError,
    NewerFormatError,
    ReadOnlyError,
    StorageIOError,
)
from vecdb.storage import FileRef, ManifestLog, PosixStore, file_refs
from vecdb.storage.manifest import (
    decode_manifest,
    encode_manifest,
    manifest_copy,
    manifest_name,
    read_manifest_file,
)

REF = {"name": "segments/1.data", "size": 3, "sha256": "0" * 64}


def simulated() -> tuple[SimulatedDisk, PosixStore]:
    disk = SimulatedDisk()
    return disk, PosixStore(ROOT, calls=disk)


def files(*numbers: int) -> list[str]:
    return [f(number) for number in numbers for f in (manifest_copy, manifest_name)]


def corrupt(disk: SimulatedDisk, number: int, change: Callable[[bytes], bytes]) -> None:
    """Change both files of a manifest."""
    for name in files(number):
        disk.corrupt(ROOT / name, change)


def test_the_newest_counts() -> None:
    _, store = simulated()
    log = ManifestLog.open(store)
    assert log.latest is None
    assert [log.publish({"n": n}) for n in (1, 2, 3)] == [1, 2, 3]
    latest = ManifestLog.open(store).latest
    assert latest is not None
    assert (latest.number, latest.body) == (3, {"n": 3})
    log.prune(2)
    assert store.list() == files(2, 3)
    assert log.publish({"n": 4}) == 4
    log.prune(0)
    assert store.list() == files(4)


def test_a_published_body_is_a_copy() -> None:
    _, store = simulated()
    log = ManifestLog.open(store)
    body = {"list": [1]}
    log.publish(body)
    body["list"].append(2)
    assert log.latest is not None
    assert log.latest.body == {"list": [1]}


def test_a_number_that_somebody_took_is_refused() -> None:
    _, store = simulated()
    first, second = ManifestLog.open(store), ManifestLog.open(store)
    first.publish({"by": "first"})
    with pytest.raises(AlreadyExistsError):
        second.publish({"by": "second"})


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": b"bytes"}, {"x": {1, 2}}])
def test_what_is_no_json_is_refused(body: dict[str, object]) -> None:
    _, store = simulated()
    with pytest.raises(InvalidArgumentError, match="JSON"):
        ManifestLog.open(store).publish(body)
    assert store.list() == []


def test_references_are_found_at_any_depth_and_keep_files_reachable() -> None:
    _, store = simulated()
    log = ManifestLog.open(store)
    other = {**REF, "name": "segments/2.data"}
    log.publish({"segments": [{"data": REF, "index": None}]})
    log.publish({"segments": [{"data": other}], "a": {"b": [[{"c": REF}]]}})
    log.publish({"segments": []})
    assert log.reachable() == {"segments/1.data", "segments/2.data"}
    log.prune(1)
    assert log.reachable() == set()
    assert list(file_refs({"x": [REF]})) == [FileRef.from_json(REF)]
    assert FileRef.from_json(REF).to_json() == REF
    assert list(file_refs({"name": {"data": REF}, "size": {}, "sha256": {}})) == [
        FileRef.from_json(REF)
    ]


@pytest.mark.parametrize(
    "ref",
    [
        {**REF, "size": -1},
        {**REF, "size": True},
        {**REF, "size": "3"},
        {**REF, "sha256": "0" * 63},
        {**REF, "sha256": "G" * 64},
        {**REF, "name": 3},
        {"name": "x"},
        [],
    ],
)
def test_a_bad_reference_is_refused(ref: object) -> None:
    with pytest.raises(ValueError, match="not a file reference"):
        FileRef.from_json(ref)


def test_a_damaged_newest_manifest_is_refused_and_named() -> None:
    disk, store = simulated()
    log = ManifestLog.open(store)
    log.publish({"n": 1})
    log.publish({"n": 2})
    corrupt(disk, 2, lambda data: data[:-3] + b"9\n}")
    with pytest.raises(CorruptFileError) as raised:
        ManifestLog.open(store)
    assert f"{ROOT / manifest_name(2)} is damaged" in str(raised.value)
    assert "1 older is there, but going back would undo later deletes" in str(raised.value)
    salvaged = ManifestLog.open(store, allow_damaged_newest=True)
    assert salvaged.latest is not None
    assert salvaged.latest.body == {"n": 1}
    assert [one.number for one in salvaged.damaged] == [2]
    assert salvaged.publish({"n": 3}) == 3  # the damaged number is not used again
    salvaged.prune(1)
    assert store.list() == files(2, 3)


def test_a_damaged_old_manifest_does_no_harm_unless_it_must_be_read() -> None:
    disk, store = simulated()
    log = ManifestLog.open(store)
    log.publish({"n": 1})
    log.publish({"n": 2})
    corrupt(disk, 1, lambda _: b"")
    assert ManifestLog.open(store).latest is not None
    with pytest.raises(CorruptFileError):
        log.reachable()


def test_when_all_are_damaged_there_is_no_going_on() -> None:
    disk, store = simulated()
    ManifestLog.open(store).publish({})
    corrupt(disk, 1, lambda _: b"junk")
    for allow in (False, True):
        with pytest.raises(CorruptFileError):
            ManifestLog.open(store, allow_damaged_newest=allow)


def test_every_truncation_and_every_flipped_bit_is_damage() -> None:
    data = encode_manifest(12, {"segments": [REF]})
    for length in range(len(data)):
        with pytest.raises(CorruptFileError):
            decode_manifest(12, data[:length], where="here")
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptFileError):
            decode_manifest(12, bytes(damaged), where="here")


def test_a_renamed_manifest_is_damage() -> None:
    data = encode_manifest(12, {})
    with pytest.raises(CorruptFileError, match="renamed"):
        decode_manifest(13, data, where="here")


def test_a_newer_format_is_not_passed_over_for_an_older_manifest() -> None:
    _, store = simulated()
    ManifestLog.open(store).publish({})
    store.put(manifest_name(2), b"vecdb-manifest 7 %08x and then something new" % 0xEC9A4130)
    for allow in (False, True):
        with pytest.raises(NewerFormatError, match="manifest of format 7"):
            ManifestLog.open(store, allow_damaged_newest=allow)


def test_a_full_disk_leaves_the_newest_as_it_was() -> None:
    disk, store = simulated()
    log = ManifestLog.open(store)
    log.publish({"n": 1})
    disk.faults = Faults(full_from=-1)
    with pytest.raises(DiskFullError):
        log.publish({"n": 2})
    disk.faults = Faults()
    assert log.publish({"n": 3}) == 2


def test_after_a_failed_sync_nothing_is_published() -> None:
    disk, store = simulated()
    log = ManifestLog.open(store)
    log.publish({"n": 1})
    disk.faults = Faults(error_at=disk.calls + 5)  # create, write, sync, link, unlink; directory
    with pytest.raises(StorageIOError):
        log.publish({"n": 2})
    assert disk.log[-2].startswith("sync directory")  # then it cleans up
    with pytest.raises(ReadOnlyError):
        log.publish({"n": 3})


@pytest.mark.parametrize("which", [manifest_name, manifest_copy])
@pytest.mark.parametrize("change", [lambda _: b"", lambda data: data[:-9], None])
def test_one_of_a_manifests_two_files_is_enough(
    which: Callable[[int], str], change: Callable[[bytes], bytes] | None
) -> None:
    disk, store = simulated()
    log = ManifestLog.open(store)
    log.publish({"n": 1})
    log.publish({"n": 2})
    if change is None:
        store.delete(which(2))
    else:
        disk.corrupt(ROOT / which(2), change)
    log = ManifestLog.open(store)
    assert log.latest is not None
    assert log.latest.body == {"n": 2}
    assert log.heal() == [which(2)]
    assert read_manifest_file(store, 2, which(2)) == log.latest
    assert log.heal() == []
    assert log.publish({"n": 3}) == 3


def test_without_room_for_the_copy_a_manifest_is_published_all_the_same() -> None:
    disk, store = simulated()
    log = ManifestLog.open(store)
    calls = disk.calls
    log.publish({"n": 1})
    each = (disk.calls - calls) // 2
    disk.faults = Faults(full_from=disk.calls + each)
    assert log.publish({"n": 2}) == 2
    disk.faults = Faults()
    assert not store.exists(manifest_copy(2))
    assert log.heal() == [manifest_copy(2)]


def test_after_any_call_that_failed_nothing_is_published() -> None:
    disk = SimulatedDisk()
    log = ManifestLog.open(PosixStore(ROOT, calls=disk))
    log.publish({"n": 1})
    first = disk.calls
    log.publish({"n": 2})
    failed = 0
    for call in range(first, disk.calls):
        failing = SimulatedDisk()
        log = ManifestLog.open(PosixStore(ROOT, calls=failing))
        log.publish({"n": 1})
        failing.faults = Faults(error_at=call)
        try:
            log.publish({"n": 2})
        except StorageIOError:
            failed += 1
            with pytest.raises(ReadOnlyError):
                log.publish({"n": 3})
    assert failed > 5


def test_old_manifests_go_copy_first() -> None:
    for stop_at in range(10):
        disk = SimulatedDisk()
        log = ManifestLog.open(PosixStore(ROOT, calls=disk))
        for n in range(3):
            log.publish({"n": n})
        disk.faults = Faults(stop_at=disk.calls + stop_at)
        with suppress(PowerLossError):
            log.prune(keep=1)
        for after in (disk.after_kill(), disk.after_power_loss(lambda: False)):
            names = set(PosixStore(ROOT, calls=after).list())
            copies = {name for name in names if name.endswith(".copy")}
            assert {name.replace(".copy", ".json") for name in copies} <= names
    assert len(names) == 2
