"""Ingest: what is written, and that interruption and repetition change nothing about it."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.naive_target import DictTarget
from vecdb.errors import InvalidParameterError, UnavailableError
from vecdb.ingest import IngestOptions, IngestReport, ingest
from vecdb.types import Payload, PointId, UpsertResult

SMALL = IngestOptions(chunk_tokens=32, batch_rows=4)


def text_of(words: int, seed: str) -> str:
    return " ".join(f"{seed}{n} goes." for n in range(words))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "deep").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "a.txt").write_text(text_of(5, "a"))
    (root / "b.md").write_text("# Title\n\n" + text_of(30, "b") + "\n\n## Sub\n\nlast words\n")
    (root / "deep" / "c.rst").write_text("Top\n===\n\n" + text_of(90, "c"))
    (root / "image.png").write_bytes(b"\x89PNG")
    (root / ".hidden.txt").write_text("x")
    (root / ".git" / "y.txt").write_text("y")
    return root


def snapshot(root: Path) -> dict[object, object]:
    fresh = DictTarget()
    ingest([root], fresh, SMALL)
    return dict(fresh.points)


def test_first_ingest_writes_chunks_with_stable_ids_and_payloads(folder: Path) -> None:
    target = DictTarget()
    report = ingest([folder], target, SMALL)
    assert report.added == ["docs/a.txt", "docs/b.md", "docs/deep/c.rst"]
    assert [(s.name, s.reason.split(" (")[0]) for s in report.skipped] == [
        ("docs/.git", "hidden"),
        ("docs/.hidden.txt", "hidden"),
        ("docs/image.png", "no reader for this kind of file"),
    ]
    assert (report.replaced, report.unchanged, report.failed) == ([], [], [])
    assert report.chunks == len(target.points)
    assert max(target.batches) <= 4
    text, payload = target.points["docs/b.md#0000"]
    assert text.startswith("Title\n\nb0 goes.")
    assert payload["title"] == "Title"
    assert payload["heading"] == "Title"
    assert not any("partial" in payload for _, payload in target.points.values())
    last = target.points[f"docs/b.md#{payload['chunks'] - 1:04d}"]
    assert last[0] == "Title > Sub\n\nlast words"
    assert last[1]["chunk"] == payload["chunks"] - 1
    assert last[1]["end"] - last[1]["start"] == len("last words")


def test_a_second_ingest_writes_nothing(folder: Path) -> None:
    target = DictTarget()
    ingest([folder], target, SMALL)
    before, batches = dict(target.points), len(target.batches)
    report = ingest([folder], target, SMALL)
    assert report.unchanged == ["docs/a.txt", "docs/b.md", "docs/deep/c.rst"]
    assert (report.chunks, len(target.batches)) == (0, batches)
    assert target.points == before


@pytest.mark.parametrize("words", [1, 4, 29, 31, 200])
def test_a_changed_document_is_replaced_without_stale_chunks(folder: Path, words: int) -> None:
    target = DictTarget()
    ingest([folder], target, SMALL)
    (folder / "b.md").write_text("# Title\n\n" + text_of(words, "new"))
    report = ingest([folder], target, SMALL)
    assert report.replaced == ["docs/b.md"]
    assert target.points == snapshot(folder)


def test_other_options_split_anew(folder: Path) -> None:
    target = DictTarget()
    ingest([folder], target, SMALL)
    report = ingest([folder], target, IngestOptions(chunk_tokens=100, batch_rows=4))
    assert len(report.replaced) == 3
    assert all(payload["split"] == "2:100:0" for _, payload in target.points.values())


def finishes(folders: list[Path], target: DictTarget, calls: int) -> bool:
    """Ingest until the target has been called so often; return whether that was enough."""
    target.calls_left = calls
    try:
        ingest(folders, target, SMALL)
    except UnavailableError:
        return False
    finally:
        target.calls_left = 10**9
    return True


def test_interrupted_after_any_call_and_resumed_gives_the_same(folder: Path) -> None:
    for stop_after in itertools.count():
        target = DictTarget()
        ingest([folder], target, SMALL)
        (folder / "deep" / "c.rst").write_text("Top\n===\n\n" + text_of(40, "changed"))
        (folder / "a.txt").write_text(text_of(60, "grown"))
        finished = finishes([folder], target, stop_after)
        report = ingest([folder], target, SMALL)
        assert target.points == snapshot(folder)
        if finished:
            assert report.chunks == 0
            break
        (folder / "deep" / "c.rst").write_text("Top\n===\n\n" + text_of(90, "c"))
        (folder / "a.txt").write_text(text_of(5, "a"))
    assert stop_after > 5


def test_a_document_that_changes_back_after_an_interruption_is_whole_again(folder: Path) -> None:
    for stop_after in itertools.count():
        target = DictTarget()
        (folder / "a.txt").write_text(text_of(30, "a"))
        ingest([folder], target, SMALL)
        (folder / "a.txt").write_text(text_of(12, "a"))
        finished = finishes([folder], target, stop_after)
        (folder / "a.txt").write_text(text_of(30, "a"))
        ingest([folder], target, SMALL)
        assert target.points == snapshot(folder)
        if finished:
            break
    assert stop_after > 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), min_size=1, max_size=5))
def test_any_history_of_changes_and_interruptions_ends_alike(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("history") / "docs"
    root.mkdir()
    target = DictTarget()
    for version, (words, calls) in enumerate(history):
        (root / "a.txt").write_text(text_of(words, f"v{version}x"))
        (root / "b.txt").write_text(text_of(max(1, 30 - words // 2), "b"))
        finishes([root], target, calls)
    ingest([root], target, SMALL)
    assert target.points == snapshot(root)


def test_one_bad_file_is_reported_and_the_rest_goes_in(folder: Path) -> None:
    (folder / "binary.txt").write_bytes(b"\0\1\2")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nonsense")
    (folder / "empty.md").write_text("\n\n")
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    (folder / "refused.txt").write_text("a \x7f in it")
    (folder / "long-refused.txt").write_text(text_of(60, "r") + " \x7f")
    report = ingest([folder], target := DictTarget(), SMALL)
    assert [f.name for f in report.failed] == [
        "docs/binary.txt", "docs/broken.pdf", "docs/empty.md",
        "docs/long-refused.txt", "docs/refused.txt",
    ]  # fmt: skip
    reasons = {f.name: f.reason for f in report.failed}
    assert "NUL" in reasons["docs/binary.txt"]
    assert "damaged" in reasons["docs/broken.pdf"]
    assert "no text" in reasons["docs/empty.md"]
    assert reasons["docs/refused.txt"] == "forbidden text"
    assert "docs/gone.txt" in {s.name for s in report.skipped}
    assert report.added == ["docs/a.txt", "docs/b.md", "docs/deep/c.rst"]
    assert target.points["docs/a.txt#0000"]


@pytest.mark.parametrize("name", ["a.txt", "b.md"])
def test_a_document_that_was_emptied_leaves_nothing_behind(folder: Path, name: str) -> None:
    target = DictTarget()
    ingest([folder], target, SMALL)
    (folder / name).write_text("\n")
    report = ingest([folder], target, SMALL)
    assert [(file.name, file.reason) for file in report.failed] == [
        (f"docs/{name}", "it has no text in it, so what was written for it before is deleted")
    ]
    assert len(report.unchanged) == 2
    assert target.points == snapshot(folder)
    assert ingest([folder], target, SMALL).failed[0].reason == "it has no text in it"


def test_a_document_that_can_no_longer_be_read_stays(folder: Path) -> None:
    target = DictTarget()
    ingest([folder], target, SMALL)
    before = dict(target.points)
    (folder / "b.md").write_bytes(b"\0")
    assert [file.name for file in ingest([folder], target, SMALL).failed] == ["docs/b.md"]
    assert target.points == before


def test_a_folder_or_file_that_cannot_be_looked_at_is_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, stat = os.scandir, Path.stat

    def denied(path: Path | str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(
        os, "scandir", lambda path: denied(path) if str(path).endswith("deep") else scan(path)
    )
    monkeypatch.setattr(
        Path, "stat", lambda path, **how: denied(path) if path.name == "b.md" else stat(path, **how)
    )
    report = ingest([folder], DictTarget(), SMALL)
    assert [(f.name, f.reason) for f in report.failed] == [
        ("docs/b.md", "cannot be read: Permission denied"),
        ("docs/deep", "cannot be read: Permission denied"),
    ]
    assert report.added == ["docs/a.txt"]


def test_links_are_followed_to_files_of_the_folder_only(folder: Path) -> None:
    outside = folder.parent / "secret.txt"
    outside.write_text("secret words")
    (folder / "deep" / "inside.txt").symlink_to("../a.txt")
    (folder / "escape.txt").symlink_to(outside)
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder.parent / "link").symlink_to(folder)
    report = ingest([folder.parent / "link", folder / "escape.txt"], DictTarget(), SMALL)
    assert "docs/deep/inside.txt" in report.added
    assert report.added[-1] == "escape.txt"  # given by itself
    assert ("docs/escape.txt", "a link that leads out of the folder") in [
        (file.name, file.reason) for file in report.skipped
    ]
    assert [file.name for file in report.failed] == ["docs/loop.txt"]


@pytest.mark.parametrize("names_at_once", [1, 2, 1_000])
def test_pruning_deletes_documents_of_the_folder_that_are_gone(
    folder: Path, names_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.ingest.prune._NAMES_AT_ONCE", names_at_once)
    beside = folder.parent / "docs-2"
    beside.mkdir()
    (beside / "a.txt").write_text("words")
    target = DictTarget()
    for name in ("0.txt", "a.txt.txt", "deep/a.txt", "deep/d.txt", "z.txt"):
        (folder / name).write_text(text_of(40, "w"))
    ingest([folder, beside, folder / "a.txt"], target, SMALL)
    own = {"docs/mine": ("mine", {"path": "docs/mine"}), "docs": ("mine", {"path": "docs"})}
    for name in ("0.txt", "a.txt.txt", "deep/a.txt", "z.txt"):
        (folder / name).unlink()
    kept = {i: p for i, p in target.points.items() if not str(i).startswith("docs/")}
    target.points.update(own)
    assert ingest([folder], target, SMALL).pruned == 0
    before = len(target.points)
    report = ingest([folder], target, SMALL, prune=True)
    assert target.points == kept | own | snapshot(folder)
    assert report.pruned == before - len(target.points) > 0


def test_nothing_is_pruned_when_a_folder_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = DictTarget()
    ingest([folder], target, SMALL)
    before = dict(target.points)
    (folder / "a.txt").unlink()

    def walk(root: Path, onerror: Callable[[OSError], None]) -> Iterator[tuple[str, list, list]]:
        onerror(PermissionError(errno.EACCES, "Permission denied", str(root / "deep")))
        yield str(root), [], ["b.md"]

    monkeypatch.setattr(os, "walk", walk)
    report = ingest([folder], target, SMALL, prune=True)
    assert (report.pruned, target.points) == (0, before)


def test_headings_that_leave_less_room_than_the_overlap_shorten_it(tmp_path: Path) -> None:
    options = IngestOptions(chunk_tokens=64, overlap_tokens=45)
    (tmp_path / "a.md").write_text(f"# {'word ' * 20}\n\n{text_of(60, 'A')}")
    (tmp_path / "b.md").write_text(f"# b\n\n{text_of(60, 'B')}")
    report = ingest([tmp_path], target := DictTarget(), options)
    assert [name.split("/")[-1] for name in report.added] == ["a.md", "b.md"]
    passages = sorted(
        (payload["start"], payload["end"])
        for _, payload in target.points.values()
        if payload["path"].endswith("a.md")
    )
    assert len(passages) > 2
    assert all(after[0] < before[1] for before, after in itertools.pairwise(passages))


@pytest.mark.parametrize("overlap", [64, 5_000, -1])
def test_an_overlap_of_a_whole_chunk_is_refused(folder: Path, overlap: int) -> None:
    with pytest.raises(InvalidParameterError, match=str(overlap)):
        ingest([folder], DictTarget(), IngestOptions(chunk_tokens=64, overlap_tokens=overlap))


@pytest.mark.parametrize("form", ["---\ntitle: {}\n---\n", "# {}\n\n"])
def test_a_title_of_half_a_megabyte_is_cut_once(tmp_path: Path, form: str) -> None:
    title = form.format("word " * 100_000)
    sections = "\n\n".join(f"## Part {n}\n\ntext" for n in range(20))
    (tmp_path / "a.md").write_text(title + sections)
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return len(text.split())

    options = IngestOptions(count_tokens=count)
    target = DictTarget()
    assert ingest([tmp_path], target, options).failed == []
    assert all(count(text) <= options.chunk_tokens for text, _ in target.points.values())
    assert counted < 40 * len(title)


def test_single_files_several_roots_and_repeated_names(folder: Path) -> None:
    target = DictTarget()
    report = ingest([folder / "a.txt", folder, folder / "a.txt"], target, SMALL)
    assert report.added[0] == "a.txt"
    assert report.skipped[-1].name == "a.txt"
    assert "same name" in report.skipped[-1].reason


def test_a_missing_path_is_refused_before_anything_is_written(folder: Path) -> None:
    target = DictTarget()
    with pytest.raises(InvalidParameterError, match="no such file"):
        ingest([folder, folder / "nope"], target)
    assert not target.points


def test_the_bar_is_drawn_only_when_wanted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(ingest([folder], DictTarget()), IngestReport)
    assert capsys.readouterr().err == ""
    ingest([folder], DictTarget(), progress=True)
    assert "ingesting: 100%" in capsys.readouterr().err


def test_interrupted_while_a_document_shrinks_and_resumed_gives_the_same(tmp_path: Path) -> None:
    root = tmp_path / "docs"
    root.mkdir()
    for stop_after in itertools.count():
        target = DictTarget()
        (root / "a.txt").write_text(text_of(30, "a"))
        ingest([root], target, SMALL)
        (root / "a.txt").write_text(text_of(5, "a"))
        finished = finishes([root], target, stop_after)
        ingest([root], target, SMALL)
        assert target.points == snapshot(root)
        if finished:
            break
    assert stop_after > 2


def test_no_batch_has_more_rows_than_asked_for(tmp_path: Path) -> None:
    for n in range(9):
        (tmp_path / f"{n}.txt").write_text(text_of(5 if n % 2 else 12, f"x{n}"))
    target = DictTarget()
    ingest([tmp_path], target, SMALL)
    assert max(target.batches) <= SMALL.batch_rows
    with pytest.raises(InvalidParameterError, match=r"batch.rows"):
        ingest([tmp_path], target, IngestOptions(batch_rows=0))


def test_of_a_batch_that_is_refused_the_other_documents_go_in(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("bad word" if name == "b" else "good word")
    target = DictTarget()
    target.forbidden = "bad"
    report = ingest([tmp_path], target, SMALL)
    assert [Path(name).name for name in report.added] == ["a.txt", "c.txt"]
    assert [Path(failed.name).name for failed in report.failed] == ["b.txt"]


def test_chunks_that_were_cut_are_named(tmp_path: Path) -> None:
    class CuttingTarget(DictTarget):
        def upsert(
            self, ids: Sequence[PointId], *, texts: Sequence[str], payloads: Sequence[Payload]
        ) -> UpsertResult:
            super().upsert(ids, texts=texts, payloads=payloads)
            return UpsertResult(list(ids), truncated=list(ids))

    (tmp_path / "a.txt").write_text("some words")
    assert ingest([tmp_path / "a.txt"], CuttingTarget(), SMALL).truncated == ["a.txt#0000"]


def test_pruning_leaves_points_that_no_ingest_wrote(folder: Path) -> None:
    target = DictTarget()
    target.points["mine"] = ("t", {"path": "docs/mine", "split": "mine"})
    target.points["also mine"] = ("t", {"path": "docs/mine", "sha256": "mine"})
    ingest([folder], target, SMALL, prune=True)
    assert {"mine", "also mine"} <= target.points.keys()
