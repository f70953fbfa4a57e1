"""One flipped bit or one truncation, anywhere in a real data directory: never a wrong answer.

The directory has what a database can have: several segments with indexes and tombstones, int and
str ids, texts, payloads, a log that is needed, one that is not, a collection that is all log. After
each attack `check` must name the file, what it calls sound must be right, what it calls damaged
must be refused, and everything else must be as if nothing had been. A second opening must go as the
first did, and a repair must leave a database that answers, without what it said it gave up.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.housekeeping import NoHousekeeping
from vecdb.collection import Collection
from vecdb.database import Database
from vecdb.errors import CorruptFileError, QuarantinedError
from vecdb.storage import CheckReport, PosixStore, Severity, check_directory

DIM = 8
Point = tuple[list[float], str | None, dict[str, Any] | None]
Contents = dict[int | str, Point]


@dataclass
class Life:
    """What was written to a collection: its contents after every acknowledged write."""

    states: list[Contents] = field(default_factory=lambda: [{}])

    @property
    def now(self) -> Contents:
        return self.states[-1]

    @property
    def ids(self) -> list[int | str]:
        return list({i: None for state in self.states for i in state})


class Writer:
    """Writes to a collection and to a dict."""

    def __init__(self, points: Collection, rng: np.random.Generator) -> None:
        self.points = points
        self.life = Life()
        self._rng = rng

    def upsert(self, ids: list[int | str], *, texts: bool = False) -> None:
        vectors = self._rng.standard_normal((len(ids), DIM)).astype(np.float32)
        words = [f"text of {i}, {self._rng.integers(99)}" if texts else None for i in ids]
        payloads = [{"n": n, "of": str(i)} if texts else None for n, i in enumerate(ids)]
        self.points.upsert(ids, vectors=vectors, texts=words, payloads=payloads)
        written = zip(ids, vectors.tolist(), words, payloads, strict=True)
        self.life.states.append({**self.life.now, **{i: (v, t, p) for i, v, t, p in written}})

    def delete(self, ids: list[int | str]) -> None:
        self.points.delete(ids=ids)
        left = {i: point for i, point in self.life.now.items() if i not in ids}
        self.life.states.append(left)


def build(root: Path) -> dict[str, Life]:
    """Write the directory; return what is in each collection."""
    rng = np.random.default_rng(8)
    with Database(root, durability="os") as db:
        names = ["vecs", "docs", "tiny", "sealed"]
        writers = {n: Writer(db.create_collection(n, dim=DIM), rng) for n in names}
        vecs, docs, tiny, sealed = writers.values()
        vecs.upsert(list(range(120)))
        vecs.points.flush()
        vecs.upsert(list(range(100, 150)))
        vecs.delete([1, 2, 110])
        vecs.points.maintenance.seal()
        vecs.points.maintenance.improve()
        vecs.upsert([3, 500])
        vecs.delete([4, 120])
        vecs.upsert([4, 501])
        docs.upsert([f"é{n}" for n in range(60)], texts=True)
        docs.points.flush()
        docs.upsert(["é1", 7, "7", "long" * 50], texts=True)
        docs.delete(["é2", "é3"])
        docs.points.maintenance.seal()
        docs.upsert(["é4", 8], texts=True)
        tiny.upsert([1, "one"], texts=True)
        tiny.delete([1])
        tiny.upsert([2])
        sealed.upsert(list(range(50)))
        sealed.delete([9])
        sealed.points.flush()
    return {name: writer.life for name, writer in writers.items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Life]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
        patch.setattr("vecdb.collection.policy.INDEXED_ROWS", 40)
        root = tmp_path_factory.mktemp("attacked") / "data"
        yield root, build(root)


@dataclass(frozen=True)
class Attack:
    """What is done to one file: a bit flipped, or all from an offset on cut off."""

    file: str
    offset: int
    bit: int | None

    def apply(self, root: Path) -> bool:
        """Do it; return whether the file's contents are different now."""
        path = root / self.file
        content = path.read_bytes()
        changed = bytearray(content[: self.offset] if self.bit is None else content)
        if self.bit is not None:
            changed[self.offset] ^= 1 << self.bit
        path.write_bytes(changed)
        return bytes(changed) != content


def attacks(root: Path, seed: int) -> Iterator[Attack]:
    """Yield attacks without end: any file, any offset, ends and beginnings more often."""
    rng = random.Random(seed)
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    files = [file for file in files if (root / file).stat().st_size]
    while True:
        file = rng.choice(files)
        size = (root / file).stat().st_size
        near = min(size - 1, int(rng.expovariate(1 / 40)))
        offset = rng.choice([rng.randrange(size), rng.randrange(size), near, size - 1 - near])
        yield Attack(file, offset, rng.choice([None, rng.randrange(8), rng.randrange(8)]))


def contents(points: Collection, life: Life) -> tuple[Contents, set[int | str]]:
    """Return what can be read of a collection by id, and which ids are refused."""
    found: Contents = {}
    refused: set[int | str] = set()
    for point_id in life.ids:
        try:
            for record in points.get([point_id]):
                found[record.id] = (record.vector.tolist(), record.text, record.payload)
        except QuarantinedError:
            refused.add(point_id)
    return found, refused


def assert_searches(points: Collection, expected: Contents) -> None:
    """Compare searches and counts with the contents; k takes in everything there is."""
    assert points.count() == len(expected)
    for query in [v for v, _, _ in expected.values()][:2]:
        hits = points.search(vector=query, k=200, ef=400)
        assert {hit.id for hit in hits} == set(expected)
        base = np.array([expected[hit.id][0] for hit in hits])
        asked = np.array(query)
        scores = base @ asked / np.linalg.norm(base, axis=1) / np.linalg.norm(asked)
        assert [hit.score for hit in hits] == pytest.approx(scores.tolist(), abs=1e-5)
        assert [(hit.text, hit.payload) for hit in hits] == [expected[hit.id][1:] for hit in hits]
    filtered = {i for i, (_, _, payload) in expected.items() if payload and payload["n"] == 1}
    assert points.count({"n": 1}) == len(filtered)


def sound(root: Path, lives: dict[str, Life], hit: str | None) -> bool:
    """Open the directory and compare everything; return whether nothing at all was refused.

    Parameters
    ----------
    hit
        The collection that was attacked: the only one of which anything may be refused.
    """
    whole = True
    with Database(root, durability="os") as db:
        assert db.list_collections() == sorted(lives)
        for name, life in lives.items():
            try:
                points = db.collection(name)
            except CorruptFileError:
                assert name == hit
                whole = False
                continue
            found, refused = contents(points, life)
            assert found == {i: p for i, p in life.now.items() if i not in refused}
            info = points.info()
            if not info.quarantined:
                assert not refused
                assert_searches(points, life.now)
                continue
            assert name == hit
            whole = False
            assert info.count == len(found)
            for ask in (lambda p=points: p.count(), lambda p=points: p.search(vector=[1.0] * DIM)):
                with pytest.raises(QuarantinedError):
                    ask()
    return whole


def assert_repaired(root: Path, lives: dict[str, Life], report: CheckReport) -> None:
    """After a repair everything opens and answers; what is missing was named."""
    lost = {f.file.split("/")[0] for f in report.findings if f.severity is Severity.LOST}
    with Database(root, durability="os") as db:
        for number, (name, life) in enumerate(lives.items(), 1):
            points = db.collection(name)
            found, refused = contents(points, life)
            assert not refused
            assert_searches(points, found)
            if f"c{number:06d}" not in lost:
                assert found == life.now
                continue
            quarantined = points.info().quarantined
            assert all(q.accepted for q in quarantined)
            if any(q.part.startswith("log") for q in quarantined):
                assert found in life.states
            else:
                assert found.items() <= life.now.items()
                (segment,) = quarantined
                assert segment.points in (None, len(life.now) - len(found), *range(151))
            points.upsert([77], vectors=[[1.0] * DIM])
            points.flush()
            assert points.get([77])


def attacked(
    base: tuple[Path, dict[str, Life]], root: Path, attack: Attack, *, repair: bool
) -> None:
    pristine, lives = base
    shutil.copytree(pristine, root)
    changed = attack.apply(root)
    store = PosixStore(root, "os")
    report = check_directory(store)
    told = [f for f in report.findings if f.file.startswith(attack.file.rpartition("/")[0])]
    if changed and attack.file != "LOCK":
        assert told, "check saw nothing"
    assert len(told) == len(report.findings), "check named another file"
    folder = attack.file.split("/")[0]
    number = int(folder[1:]) if folder.startswith("c0") else 0
    hit = list(lives)[number - 1] if number else None
    for copy in ("first", "second"):
        if repair:
            shutil.copytree(root, root / f"../{copy}")
        assert sound(root, lives, hit) == report.ok, f"at the {copy} opening"
    if repair:
        for copy in ("first", "second"):
            target = (root / f"../{copy}").resolve()
            mended = check_directory(PosixStore(target, "os"), repair=True, cut_wal=True)
            assert mended.ok
            by_a_bit = attack.bit is not None and "/segments/" in attack.file
            assert mended.lost == (not report.ok and not by_a_bit)
            assert_repaired(target, lives, mended)
            again = check_directory(PosixStore(target, "os"), repair=True, cut_wal=True)
            assert again.ok
            assert not again.lost
            shutil.rmtree(target)
    shutil.rmtree(root)


def attack_many(
    base: tuple[Path, dict[str, Life]], root: Path, *, count: int, seed: int, repair_every: int
) -> None:
    endless = attacks(base[0], seed)
    for number in range(count):
        attack = next(endless)
        try:
            attacked(base, root / "copy", attack, repair=number % repair_every == 0)
        except BaseException as error:
            error.add_note(f"attack {number} of seed {seed}: {attack}")
            raise


def test_nothing_is_refused_or_reported_without_an_attack(
    base: tuple[Path, dict[str, Life]], tmp_path: Path
) -> None:
    shutil.copytree(base[0], tmp_path / "copy")
    assert check_directory(PosixStore(tmp_path / "copy", "os")).findings == []
    assert sound(tmp_path / "copy", base[1], None)


def test_attacks(base: tuple[Path, dict[str, Life]], tmp_path: Path) -> None:
    attack_many(base, tmp_path, count=150, seed=1, repair_every=6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_attacks(base: tuple[Path, dict[str, Life]], tmp_path: Path, seed: int) -> None:
    attack_many(base, tmp_path, count=200, seed=seed, repair_every=2)


@pytest.mark.parametrize(
    "broken",
    [
        "vecdb.storage.sections.Sections.verify",
        "vecdb.collection.snapshot.Snapshot.check_whole",
    ],
)
def test_the_attacks_find_what_is_not_verified(
    base: tuple[Path, dict[str, Life]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    monkeypatch.setattr(broken, lambda _: None)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        attack_many(base, tmp_path, count=60, seed=1, repair_every=100)
