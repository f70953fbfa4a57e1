"""Tokens per second of the encoder, beside sentence-transformers on the same weights.

The two take turns, round by round, so that whatever else the machine does hits both alike. A
token is one of a text as the model reads it: cut to the limit, special tokens in, padding out.
Tokenizing is part of both times. Without sentence-transformers, vecdb is measured alone.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.encoder_peer import load_peer
from bench.machine import describe_commit, describe_machine, versions
from vecdb.encode import Encoder, load_encoder

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

_CALLERS = 16


def read_texts(path: Path) -> list[str]:
    """Return the lines of a text file, gzipped or not, that hold something."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    return [line for line in data.decode("utf-8").splitlines() if line.strip()]


def workloads(lines: list[str], count: int, seed: int) -> dict[str, list[str]]:
    """Return the texts of each workload: about the same number of characters in each."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, max(1, len(lines) - 12), count)
    return {
        "sentences": [lines[start] for start in starts],
        "passages": [" ".join(lines[start : start + 6]) for start in starts[: count // 6]],
        "over the limit": [" ".join(lines[start : start + 12]) for start in starts[: count // 12]],
    }


def measure(
    engines: dict[str, Encode], texts: list[str], tokens: int, rounds: int
) -> dict[str, Any]:
    """Return tokens per second of each engine, and how far their vectors agree."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    vectors = {name: encode(texts) for name, encode in engines.items()}  # and a warm-up
    for _ in range(rounds):
        for name, encode in engines.items():
            start = time.perf_counter()
            encode(texts)
            seconds[name].append(time.perf_counter() - start)
    result: dict[str, Any] = {"texts": len(texts), "tokens": tokens}
    for name, passes in seconds.items():
        result[name] = {
            "tokens_per_s": round(tokens / median(passes)),
            "tokens_per_s_best": round(tokens / min(passes)),
        }
    if len(vectors) > 1:
        ours, theirs = list(vectors.values())[:2]
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        result["least_cosine"] = float(((ours.astype(np.float64) * theirs).sum(1) / norms).min())
    return result


def measure_questions(engines: dict[str, Encode], texts: list[str]) -> dict[str, Any]:
    """Return the latency of single short texts, one caller, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for text in texts:
        for name, encode in engines.items():
            start = time.perf_counter()
            encode([text])
            times[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: {"p50_ms": round(float(np.percentile(ms, 50)), 2),
               "p99_ms": round(float(np.percentile(ms, 99)), 2)}
        for name, ms in times.items()
    }  # fmt: skip


def measure_callers(encode: Encode, texts: list[str], tokens: int) -> dict[str, Any]:
    """Return what many callers with one text each get together."""
    start = time.perf_counter()
    with ThreadPoolExecutor(_CALLERS) as callers:
        list(callers.map(lambda text: encode([text]), texts))
    seconds = time.perf_counter() - start
    return {"callers": _CALLERS, "tokens_per_s": round(tokens / seconds),
            "texts_per_s": round(len(texts) / seconds, 1)}  # fmt: skip


def count_tokens(encoder: Encoder, texts: list[str]) -> int:
    """Return the tokens that the model reads of the texts."""
    return sum(min(encoder.count_tokens(text), encoder.max_tokens) for text in texts)


@click.command()
@click.option(
    "--texts",
    "path",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Sentences, one a line, UTF-8; may be gzipped.",
)
@click.option("--count", default=600, show_default=True, help="Sentences per round.")
@click.option("--rounds", default=3, show_default=True, help="Timed rounds of each engine.")
@click.option("--threads", default=None, type=int, help="CPU threads; default: all there are.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--peer-batch",
    default=32,
    show_default=True,
    help="batch_size of sentence-transformers; 32 is its default.",
)
@click.option("--seed", default=0, show_default=True, help="Which sentences are drawn.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the result here as JSON.")
def main(path: Path, count: int, rounds: int, threads: int | None, device: str, peer_batch: int,
         seed: int, out: Path | None) -> None:  # fmt: skip
    """Measure all-MiniLM-L6-v2: tokens per second, agreement, latency of one question."""
    encoder = load_encoder("all-MiniLM-L6-v2", device=device, threads=threads)
    engines: dict[str, Encode] = {"vecdb": lambda texts: encoder.encode(texts).vectors}
    on_cuda = encoder.provider.startswith("CUDA")
    peer = load_peer("cuda" if on_cuda else "cpu", threads=threads, batch_size=peer_batch)
    if peer is not None:
        engines["sentence-transformers"] = peer
    result: dict[str, Any] = {
        "command": f"--count {count} --rounds {rounds} --threads {threads} --seed {seed}",
        "commit": describe_commit(),
        "machine": describe_machine(),
        "versions": versions("onnxruntime", "tokenizers", "torch", "sentence-transformers"),
        "provider": encoder.provider,
        "peer_batch": peer_batch,
    }
    drawn = workloads(read_texts(path), count, seed)
    for name, texts in drawn.items():
        result[name] = measure(engines, texts, count_tokens(encoder, texts), rounds)
        click.echo(f"{name}: {json.dumps(result[name])}")
    short = [" ".join(text.split()[:8]) for text in drawn["sentences"][:100]]
    result["one question"] = measure_questions(engines, short)
    click.echo(f"one question: {json.dumps(result['one question'])}")
    tokens = count_tokens(encoder, drawn["sentences"])
    result["many callers"] = measure_callers(engines["vecdb"], drawn["sentences"], tokens)
    click.echo(f"many callers: {json.dumps(result['many callers'])}")
    result["machine"]["load_1min_at_end"] = describe_machine()["load_1min"]
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")
    encoder.close()


if __name__ == "__main__":
    main()
