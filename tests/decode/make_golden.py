"""Write golden.json: what the numpy reference says of SmolLM2-135M-Instruct.

Run from the repository's root, with the PEPs unpacked somewhere (a few minutes):

    python -m tests.decode.make_golden FILE.gguf PEPS_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.decode.reference import ReferenceDecoder
from vecdb.decode.gguf_file import GgufFile
from vecdb.decode.gguf_tokenizer import describe_tokenizer
from vecdb.decode.tokenizer import DecoderTokenizer

QUESTIONS = [
    "What is the capital of France, and what is it known for?",
    "Explain in simple words why the sky is blue.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Wie heißt die Hauptstadt von Österreich? Réponds en français, s'il te plaît. 日本語 🙂",
    (
        "Using only this source, say what PEP 8 is about.\n[1] This document gives coding "
        "conventions for the Python code comprising the standard library in the main Python "
        "distribution."
    ),
]
TOKENS = 64
SCORED = 1_001
GOLDEN = Path(__file__).parent / "golden.json"


def main(gguf: Path, peps: Path) -> None:
    tokenizer = DecoderTokenizer(describe_tokenizer(GgufFile(gguf)))
    reference = ReferenceDecoder(gguf)
    generations = []
    for question in QUESTIONS:
        prompt = tokenizer.encode_messages([{"role": "user", "content": question}])
        generations.append(
            {
                "question": question,
                "prompt": prompt,
                "tokens": list(reference.greedy(prompt, TOKENS)),
            }
        )
    scored = tokenizer.encode((peps / "pep-0008.rst").read_text("utf-8"))[:SCORED]
    log_probabilities = reference.log_probabilities(scored)
    golden = {
        "generations": generations,
        "scored": {"tokens": scored, "mean_log_probability": log_probabilities.mean()},
    }
    lines = json.dumps(golden, ensure_ascii=False, indent=1)
    GOLDEN.write_text(_short_lists(lines) + "\n", "utf-8")


def _short_lists(text: str) -> str:
    """Put each list of numbers on one line, so that the file can be read."""
    import re

    return re.sub(
        r"\[\s+(-?\d+(?:,\s+-?\d+)*)\s+\]",
        lambda match: "[" + re.sub(r"\s+", " ", match.group(1)) + "]",
        text,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
