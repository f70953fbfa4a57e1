"""One flipped bit is found through a checksum and put right; anything else is left as it is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.storage.faulty import ROOT, Faults, PowerLossError, SimulatedDisk, outcomes
from vecdb.storage import FileRef, PosixStore, Severity, check_directory, write_segment
from vecdb.storage.crc import crc32c
from vecdb.storage.mend import flipped_bits, mend_bit

VECTORS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def made() -> tuple[SimulatedDisk, PosixStore, FileRef, bytes]:
    disk = SimulatedDisk()
    store = PosixStore(ROOT, calls=disk)
    ref = write_segment(store, "x", [5, "a", 7], VECTORS, ["t", None, "u"], [b"{}", None, None])
    return disk, store, ref, store.read("x")


def flipped(data: bytes, *bits: int) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_single_bit_of_a_segment_is_put_right() -> None:
    disk, store, ref, whole = made()
    for bit in range(0, 8 * len(whole), 13):
        disk.corrupt(ROOT / "x", lambda _, bit=bit: flipped(whole, bit))
        assert mend_bit(store, ref) == bit // 8
        assert store.read("x") == whole


def test_more_than_one_bit_is_left_alone() -> None:
    disk, store, ref, whole = made()
    rng = np.random.default_rng(1)
    for _ in range(100):
        bits = rng.choice(8 * len(whole), 2, replace=False).tolist()
        disk.corrupt(ROOT / "x", lambda _, bits=bits: flipped(whole, *bits))
        assert mend_bit(store, ref) is None
        assert store.read("x") == flipped(whole, *bits)
    for damaged in (whole[:-1], whole + b"x", b"", bytes(len(whole))):
        disk.corrupt(ROOT / "x", lambda _, damaged=damaged: damaged)
        assert mend_bit(store, ref) is None
    store.delete("x")
    assert mend_bit(store, ref) is None


@pytest.mark.parametrize("length", [1, 2, 3, 1_000, 3 << 20])
def test_a_bit_is_found_in_a_section_of_any_length(length: int) -> None:
    data = np.random.default_rng(2).integers(0, 256, length, np.uint8)
    right = crc32c(data)
    for bit in {0, 1, 8 * length - 1, 4 * length, 7 * length // 3}:
        data[bit // 8] ^= 1 << bit % 8
        assert list(flipped_bits(right ^ crc32c(data), 8 * length)) == [bit]
        data[bit // 8] ^= 1 << bit % 8
    assert list(flipped_bits(0, 8 * length)) == []


def test_a_repair_mends_before_it_gives_up_and_may_be_cut_short() -> None:
    from tests.storage.test_repair import DATA, DEAD, simulated

    def one(data: bytes) -> bytes:
        return flipped(data, 8 * len(data) // 2)

    _, sound = simulated()
    disk, store = simulated((DATA, one), (DEAD, one))
    start = disk.calls
    report = check_directory(store, repair=True)
    assert [(f.severity, f.file) for f in report.findings] == [
        (Severity.REPAIRED, DATA),
        (Severity.REPAIRED, DEAD),
    ]
    assert "one bit at offset" in str(report)
    assert not report.lost
    assert store.read(DATA) == sound.read(DATA)
    assert store.read(DEAD) == sound.read(DEAD)
    for call in range(disk.calls - start):
        cut, _ = simulated((DATA, one), (DEAD, one))
        cut.faults = Faults(stop_at=cut.calls + call)
        with pytest.raises(PowerLossError):
            check_directory(PosixStore(ROOT, calls=cut), repair=True)
        for keep in outcomes(call):
            after = PosixStore(ROOT, calls=cut.after_power_loss(keep))
            assert not check_directory(after, repair=True).lost
            assert after.read(DATA) == sound.read(DATA)
            assert after.read(DEAD) == sound.read(DEAD)
