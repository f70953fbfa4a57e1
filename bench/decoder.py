"""Speed of the decoder beside onnxruntime-genai's, on the same weights, in the same run.

    python -m bench.decoder --out decoder.json

"genai" is its runtime over vecdb's own graph: the same model, computed alike. "genai-builder" and
"genai-builder-int4" are what its model builder makes of the dequantised GGUF: int4 in blocks of 32
without minima, which is faster and another, worse model (bench/notes/decoder.md has its
perplexity), with the output head in 8 bits, as the GGUF has it, or in 4, the builder's default.
They need torch, transformers and onnx-ir and are kept beside the model cache. All run with as many
threads as vecdb, in turns, so that noise hits all alike. Prompts are random tokens: speed does not
depend on them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.decoder_peer import build_with_genai, wrap_graph
from bench.machine import describe_commit, describe_machine, versions
from vecdb.decode import GenerationParams
from vecdb.decode.load import cached_graph
from vecdb.decode.onnx import OnnxDecoder, default_threads
from vecdb.registry.cache import default_root
from vecdb.registry.models import fetch, find_model

ENGINES = ("vecdb", "vecdb-float32", "genai", "genai-builder", "genai-builder-int4")
Run = Callable[[list[int], int], tuple[float, float]]
"""Takes a prompt and n; returns seconds to the first token and for the n after it."""


def vecdb_engine(gguf: Path, sha256: str, activations: str, device: str, threads: int) -> Run:
    graph = cached_graph(gguf, sha256, activations, device, None)  # type: ignore[arg-type]
    decoder = OnnxDecoder(graph, device=device, threads=threads)

    def run(prompt: list[int], n: int) -> tuple[float, float]:
        start = time.perf_counter()
        tokens = decoder.generate(prompt, GenerationParams(max_tokens=n + 1))
        next(tokens)
        first = time.perf_counter()
        written = sum(1 for _ in tokens)
        end = time.perf_counter()
        if written != n:
            raise click.ClickException(f"vecdb wrote {written} tokens, not {n}")
        return first - start, end - first

    return run


def genai_engine(folder: Path, threads: int) -> Run:
    import onnxruntime_genai as genai

    config = genai.Config(str(folder))
    options = {"intra_op_num_threads": threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = genai.Model(config)

    def run(prompt: list[int], n: int) -> tuple[float, float]:
        length = len(prompt) + n + 1
        params = genai.GeneratorParams(model)
        # min_length keeps an end token from ending the run early.
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        start = time.perf_counter()
        generator = genai.Generator(model, params)
        generator.append_tokens(np.array(prompt, dtype=np.int32))
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(n):
            generator.generate_next_token()
        return first - start, time.perf_counter() - first

    return run


def measure(
    engines: dict[str, Run], prompt_tokens: int, new_tokens: int, repeats: int
) -> list[dict[str, Any]]:
    random = np.random.default_rng(prompt_tokens)
    prompt = random.integers(100, 40_000, size=prompt_tokens).tolist()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for run in engines.values():
        run(prompt, 2)
    for _ in range(repeats):
        for name, run in engines.items():
            seconds[name].append(run(prompt, new_tokens))
    rows = []
    for name, pairs in seconds.items():
        prefill, decode = np.array(pairs).T
        rows.append(
            {
                "engine": name,
                "prompt_tokens": prompt_tokens,
                "prefill_tokens_per_s": round(prompt_tokens / float(np.median(prefill)), 1),
                "prefill_best": round(prompt_tokens / float(prefill.min()), 1),
                "decode_tokens_per_s": round(new_tokens / float(np.median(decode)), 1),
                "decode_best": round(new_tokens / float(decode.min()), 1),
            }
        )
    return rows


@click.command(help=__doc__)
@click.option("--engines", default=",".join(ENGINES), show_default=True)
@click.option("--prompts", default="107,1222", show_default=True, help="Prompt lengths, in tokens.")
@click.option("--new-tokens", default=64, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", default=None, type=int, help="Default: the CPUs of this process.")
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]), show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
def main(
    engines: str,
    prompts: str,
    new_tokens: int,
    repeats: int,
    threads: int | None,
    device: str,
    out: Path | None,
) -> None:
    threads = threads or default_threads()
    file = find_model("SmolLM2-135M-Instruct", role="decoder").files[0]
    gguf = fetch(file)
    folders = default_root().parent / "bench" / "genai"
    runs: dict[str, Run] = {}
    for name in engines.split(","):
        if name not in ENGINES:
            raise click.UsageError(f"unknown engine {name!r}: {', '.join(ENGINES)}")
        if name == "genai":
            graph = cached_graph(gguf, file.sha256, "int8", "cpu", None)
            runs[name] = genai_engine(wrap_graph(graph, folders / "same-graph"), threads)
        elif name.startswith("genai-builder"):
            bits = 4 if name.endswith("int4") else 8
            folder = build_with_genai(gguf, folders / f"builder-head{bits}", bits)
            runs[name] = genai_engine(folder, threads)
        else:
            activations = "float32" if name == "vecdb-float32" else "int8"
            runs[name] = vecdb_engine(gguf, file.sha256, activations, device, threads)
    rows = []
    for length in map(int, prompts.split(",")):
        for row in measure(runs, length, new_tokens, repeats):
            rows.append(row)
            print(
                f"{row['prompt_tokens']:>6} {row['engine']:<18}"
                f" prefill {row['prefill_tokens_per_s']:>7} tokens/s (best {row['prefill_best']})"
                f"  decode {row['decode_tokens_per_s']:>6} (best {row['decode_best']})",
                flush=True,
            )
    if out is not None:
        report = {
            "model": file.name,
            "new_tokens": new_tokens,
            "repeats": repeats,
            "threads": threads,
            "device": device,
            "commit": describe_commit(),
            "machine": describe_machine(),
            "versions": versions("vecdb", "onnxruntime", "onnxruntime-gpu", "onnxruntime-genai"),
            "results": rows,
        }
        out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
