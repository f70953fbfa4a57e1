"""The main job on real text: serve, ingest, answer, measure, stop. What ``vecdb demo`` runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from vecdb.answer import Answer
from vecdb.config import DEFAULT_DECODER, DEFAULT_ENCODER
from vecdb.errors import CollectionNotFoundError, UnavailableError
from vecdb.ingest import IngestReport, ingest
from vecdb.rag.sentences import sentence_spans
from vecdb.types import Hit, Matrix, PointId
from vecdb_client import Client, Collection

CORPUS = Path(__file__).parent / "demo_corpus" / "peps"
COLLECTION = "peps"
QUESTIONS = (
    "What does PEP stand for?",
    "What is the maximum line length in the style guide?",
    "How often is a new Python version released?",
    "How do I bake sourdough bread?",
)
"""Three that the corpus answers, and one that it does not."""

_SOURCES = 3
"""Few, because the small decoder of the demo is led astray by every further one."""
_QUERIES = 200
_K = 10
_START_SECONDS = 300.0
_STOP_SECONDS = 60.0
_CALL_SECONDS = 600.0


def run_demo(data: Path, write: Callable[[str], object] | None = None) -> None:
    """Run the demo in the directory `data`; a second run finds the first one's collection there.

    Parameters
    ----------
    data
        The data directory of the server that is started, and stopped again, whatever happens.
    write
        Takes what is to be shown; by default, standard output.

    Raises
    ------
    VecdbError
        Whatever goes wrong; `UnavailableError` when the server does not start.
    """
    show = write or _show
    started = time.monotonic()
    fetch_models(show)
    with running_server(data, show) as url, Client(url, timeout=_CALL_SECONDS) as database:
        try:
            points = database.collection(COLLECTION)
        except CollectionNotFoundError:
            points = database.create_collection(COLLECTION, encoder=DEFAULT_ENCODER)
        show(f"\nIngesting {CORPUS.name} (50 of Python's design documents) into {COLLECTION!r}:\n")
        report = ingest([CORPUS], points, progress=True)
        points.flush()
        show(_ingest_line(report, points.count()))
        for question in QUESTIONS:
            show_answer(question, points.ask(question, k=_SOURCES), show)
        show_search_quality(database, points, show)
    show(f"\nThe server has stopped. The whole demo took {time.monotonic() - started:.0f} s.\n")


def fetch_models(show: Callable[[str], object]) -> None:
    """Bring the two models onto this machine, here rather than in the server, to show progress."""
    from vecdb.registry.models import fetch_all, find_model

    for name in (DEFAULT_ENCODER, DEFAULT_DECODER):
        model = find_model(name)
        show(f"Model {model.name} ({model.size / 1e6:.0f} MB, {model.licence})\n")
        fetch_all(model)


@contextmanager
def running_server(data: Path, show: Callable[[str], object]) -> Iterator[str]:
    """Run a server as its own process, and yield its URL; no process is left behind.

    Raises
    ------
    UnavailableError
        If it ends, or does not listen in time; with the last lines that it wrote.
    """
    command = [
        sys.executable, "-m", "vecdb.cli", "serve",
        "--data", str(data), "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        _signals_as_interrupts(),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            url = _wait_for_url(process, log)
            show(f"A server listens on {url} (process {process.pid}, data in {data})\n")
            yield url
        finally:
            _stop(process)


def show_answer(question: str, answer: Answer, show: Callable[[str], object]) -> None:
    """Show a question, its answer as it is written, and the passages that the answer rests on."""
    show(f"\nQ: {question}\nA: ")
    for piece in answer:
        show(piece)
    show("\n")
    texts = {source.number: source.text for source in answer.sources}
    for citation in answer.citations:
        cited = texts[citation.source][citation.chunk_start : citation.chunk_end]
        sentence = answer.text[citation.start : citation.end]
        show(
            f'   "{_shortened(sentence, 60)}"\n      rests on [{citation.source}] {citation.id} '
            f'(support {citation.score:.2f}): "{_shortened(cited, 110)}"\n'
        )
    if not answer.citations:
        show(f"   (no citation; finish_reason: {answer.finish_reason})\n")


def show_search_quality(
    database: Client, points: Collection, show: Callable[[str], object]
) -> None:
    """Measure recall@10 of the collection against exact search, and how long a search takes."""
    ids, vectors, texts = _everything(points)
    queries = _query_vectors(database, texts)
    scores = queries @ vectors.T
    found, seconds = [], []
    points.search(vector=queries[0], k=_K)  # the first call of a process pays for loading
    for query in queries:
        began = time.perf_counter()
        found.append(points.search(vector=query, k=_K))
        seconds.append(time.perf_counter() - began)
    recall = np.mean([_recall(hits, row, ids) for hits, row in zip(found, scores, strict=True)])
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
    info = points.info()
    show(
        f"\nSearch over {info.count} vectors of {info.dim} dimensions ({info.indexed} in a graph "
        f"index), {len(queries)} queries, k={_K}, through the client:\n"
        f"   recall@{_K} against exact search: {recall:.4f}\n"
        f"   p50 {p50:.2f} ms, p99 {p99:.2f} ms\n"
    )


def _everything(points: Collection) -> tuple[NDArray[np.object_], Matrix, list[str]]:
    """Fetch the collection, with unit vectors, by the ids that its own search finds."""
    ids: list[PointId] = []
    for path in sorted(f"{CORPUS.name}/{file.name}" for file in CORPUS.iterdir()):
        for marker in points.get([f"{path}#0000"]):
            chunks = (marker.payload or {})["chunks"]
            ids += [f"{path}#{n:04d}" for n in range(chunks)]
    records = [r for a in range(0, len(ids), 500) for r in points.get(ids[a : a + 500])]
    vectors = np.stack([record.vector for record in records])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.array([record.id for record in records], dtype=object)
    return names, vectors, [record.text or "" for record in records]


def _query_vectors(database: Client, texts: Sequence[str]) -> Matrix:
    """Embed single sentences of the corpus, in a collection of their own that is dropped again."""
    rng = np.random.default_rng(7)
    sentences: dict[str, None] = {}
    for number in rng.permutation(len(texts)):
        text = texts[number]
        spans = [span for span in sentence_spans(text)[1:] if span[1] - span[0] >= 40]
        if spans:
            start, end = spans[rng.integers(len(spans))]
            sentences[text[start:end]] = None
        if len(sentences) == _QUERIES:
            break
    name = f"{COLLECTION}-queries"
    if name in database.list_collections():  # left by a run that was broken off
        database.drop_collection(name)
    scratch = database.create_collection(name, encoder=DEFAULT_ENCODER)
    try:
        scratch.upsert(list(range(len(sentences))), texts=list(sentences))
        vectors = np.stack([r.vector for r in scratch.get(list(range(len(sentences))))])
    finally:
        database.drop_collection(name)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _recall(hits: Sequence[Hit], scores: NDArray[np.float32], ids: NDArray[np.object_]) -> float:
    """Return the share of `hits` that score at least as well as the exact k-th best.

    By score and not by id, because the corpus holds passages twice (its copyright notices).
    """
    kth = float(np.partition(scores, -_K)[-_K])
    by_id: dict[PointId, float] = dict(zip(ids.tolist(), scores.tolist(), strict=True))
    return sum(by_id[hit.id] >= kth - 1e-6 for hit in hits) / _K


def _wait_for_url(process: subprocess.Popen[str], log: IO[str]) -> str:
    """Read the server's output up to the line that names its URL."""
    stream = process.stdout
    if stream is None:
        raise ValueError("the server's standard output is not a pipe")
    # A server that hangs is ended by the timer, which ends its output and so this loop.
    timer = threading.Timer(_START_SECONDS, process.kill)
    timer.start()
    try:
        for line in stream:
            if line.startswith("listening on "):
                return line.removeprefix("listening on ").strip()
    finally:
        timer.cancel()
    log.seek(0)
    last = "".join(log.readlines()[-15:])
    raise UnavailableError(
        f"the server ended with status {process.wait()} before it listened:\n{last}"
    )


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the server to drain and flush; end it when it does not."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, so that they too stop the server."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it gets signals
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _ingest_line(report: IngestReport, count: int) -> str:
    documents = len(report.added) + len(report.replaced)
    return (
        f"{documents} documents ingested in {report.seconds:.1f} s, {len(report.unchanged)} were "
        f"there already, {len(report.failed)} failed; the collection holds {count} passages\n"
    )


def _shortened(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
