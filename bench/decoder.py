"""Speed of the decoder beside onnxruntime-genai's, on the same weights, in the same run.

    python -m bench.decoder --out decoder.json

"vecdb" is the decoder as `load_chat_model` makes it, "vecdb-one-a-step" the same without guesses
of the next token. "genai" is the peer's runtime over vecdb's own graph: the same model, computed
alike. "genai-builder" and "genai-builder-int4" are what its model builder makes of the dequantised
GGUF: int4 in blocks of 32 without minima, which is faster and another, worse model
(bench/notes/decoder.md has its perplexity), with the output head in 8 bits, as the GGUF has it, or
in 4, the builder's default. They need torch, transformers and onnx-ir and are kept beside the model
cache. All run with as many threads as vecdb. In every round all engines get the same prompt, in
turns, so that noise hits all alike; a ratio is the median over the rounds of the first engine's
time to this one's. On a busy machine `--cpu-time` counts the processor time of one thread. Prompts
ask about a PEP of the demo's corpus, another one each round: guesses depend on the text.
"""

from __future__ import annotations

import itertools
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
from vecdb.decode.load import cached_graph, cached_tokenizer
from vecdb.decode.onnx import OnnxDecoder
from vecdb.decode.tokenizer import DecoderTokenizer
from vecdb.demo import CORPUS
from vecdb.onnx_sessions import default_threads
from vecdb.registry.cache import default_root
from vecdb.registry.models import fetch, find_model

ENGINES = (
    *("vecdb", "vecdb-one-a-step", "vecdb-float32"),
    *("genai", "genai-builder", "genai-builder-int4"),
)
QUESTION = "Explain at length what this text says and why."
Clock = Callable[[], float]
Run = Callable[[list[int], int], tuple[float, float]]
"""Takes a prompt and n; returns seconds to the first token and for the n after it."""


def read_prompts(path: Path, sha256: str, tokens: int) -> list[list[int]]:
    """Return chat prompts of that many tokens, one about each PEP of the demo that is long enough.

    Texts are cut in their middle, where the question and the template's end are kept.
    """
    tokenizer = DecoderTokenizer(cached_tokenizer(path, sha256, None).read_text("utf-8"))

    def encode(text: str) -> list[int]:
        return tokenizer.encode_messages([{"role": "user", "content": f"{text}\n\n{QUESTION}"}])

    ends = zip(reversed(encode("a.")), reversed(encode("b")), strict=False)
    kept = next(place for place, (one, other) in enumerate(ends) if one != other)
    prompts = []
    for file in sorted(CORPUS.glob("*.rst")):
        whole = encode(file.read_text("utf-8")[1_000:9_000])
        if len(whole) > tokens:
            prompts.append(whole[: tokens - kept] + whole[-kept:])
    return prompts


def vecdb_engine(graph: Path, device: str, threads: int, look_ahead: bool, clock: Clock) -> Run:
    decoder = OnnxDecoder(graph, device=device, threads=threads, look_ahead=look_ahead)

    def run(prompt: list[int], n: int) -> tuple[float, float]:
        start = clock()
        tokens = decoder.generate(prompt, GenerationParams(max_tokens=n + 1))
        next(tokens)
        first = clock()
        written = sum(1 for _ in tokens)
        end = clock()
        if written != n:
            raise click.ClickException(f"vecdb wrote {written} tokens, not {n}")
        return first - start, end - first

    return run


def genai_engine(folder: Path, threads: int, clock: Clock) -> Run:
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
        start = clock()
        generator = genai.Generator(model, params)
        generator.append_tokens(np.array(prompt, dtype=np.int32))
        generator.generate_next_token()
        first = clock()
        for _ in range(n):
            generator.generate_next_token()
        return first - start, clock() - first

    return run


def measure(
    engines: dict[str, Run], prompts: list[list[int]], new_tokens: int, repeats: int
) -> list[dict[str, Any]]:
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for run in engines.values():
        run(prompts[0], 2)
    for prompt in itertools.islice(itertools.cycle(prompts), repeats):
        for name, run in engines.items():
            seconds[name].append(run(prompt, new_tokens))
    length = len(prompts[0])
    firsts = np.array(seconds[next(iter(engines))])
    rows = []
    for name, pairs in seconds.items():
        prefill, decode = np.array(pairs).T
        prefill_ratio, decode_ratio = np.median(firsts / np.array(pairs), axis=0)
        rows.append(
            {
                "engine": name,
                "prompt_tokens": length,
                "prefill_tokens_per_s": round(length / float(np.median(prefill)), 1),
                "prefill_best": round(length / float(prefill.min()), 1),
                "prefill_ratio": round(float(prefill_ratio), 3),
                "decode_tokens_per_s": round(new_tokens / float(np.median(decode)), 1),
                "decode_best": round(new_tokens / float(decode.min()), 1),
                "decode_ratio": round(float(decode_ratio), 3),
            }
        )
    return rows


@click.command(help=__doc__)
@click.option("--engines", default=",".join(ENGINES), show_default=True)
@click.option("--prompts", default="107,1222", show_default=True, help="Prompt lengths, in tokens.")
@click.option("--new-tokens", default=64, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", default=None, type=int, help="Default: the CPUs of this process.")
@click.option("--cpu-time", is_flag=True, help="Count processor time, with one thread.")
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]), show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
def main(
    engines: str,
    prompts: str,
    new_tokens: int,
    repeats: int,
    threads: int | None,
    cpu_time: bool,
    device: str,
    out: Path | None,
) -> None:
    threads = 1 if cpu_time else threads or default_threads()
    clock = time.thread_time if cpu_time else time.perf_counter
    file = find_model("SmolLM2-135M-Instruct", role="decoder").files[0]
    gguf = fetch(file)
    folders = default_root().parent / "bench" / "genai"
    runs: dict[str, Run] = {}
    for name in engines.split(","):
        if name not in ENGINES:
            raise click.UsageError(f"unknown engine {name!r}: {', '.join(ENGINES)}")
        if name == "genai":
            graph = cached_graph(gguf, file.sha256, "int8", "cpu", None)
            folder = wrap_graph(graph, folders / "same-graph")
            runs[name] = genai_engine(folder, threads, clock)
        elif name.startswith("genai-builder"):
            bits = 4 if name.endswith("int4") else 8
            folder = build_with_genai(gguf, folders / f"builder-head{bits}", bits)
            runs[name] = genai_engine(folder, threads, clock)
        else:
            activations = "float32" if name == "vecdb-float32" else "int8"
            graph = cached_graph(gguf, file.sha256, activations, device, None)  # type: ignore[arg-type]
            runs[name] = vecdb_engine(graph, device, threads, name == "vecdb", clock)
    rows = []
    for length in map(int, prompts.split(",")):
        texts = read_prompts(gguf, file.sha256, length)
        for row in measure(runs, texts, new_tokens, repeats):
            rows.append(row)
            print(
                f"{row['prompt_tokens']:>6} {row['engine']:<18}"
                f" prefill {row['prefill_tokens_per_s']:>7} tokens/s (best {row['prefill_best']},"
                f" ratio {row['prefill_ratio']}) decode {row['decode_tokens_per_s']:>6}"
                f" (best {row['decode_best']}, ratio {row['decode_ratio']})",
                flush=True,
            )
    if out is not None:
        report = {
            "model": file.name,
            "new_tokens": new_tokens,
            "repeats": repeats,
            "threads": threads,
            "clock": "processor time" if cpu_time else "wall",
            "device": device,
            "commit": describe_commit(),
            "machine": describe_machine(),
            "versions": versions("vecdb", "onnxruntime", "onnxruntime-gpu", "onnxruntime-genai"),
            "results": rows,
        }
        out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
