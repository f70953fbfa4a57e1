"""Fuzz the decoders for a while: ``python -m tests.fuzz.run --seconds 600``; needs atheris.

Each target runs in a process of its own, one after the other, with an equal share of the time.
The corpus is kept between runs, in ``--corpus``; an input that is a finding is left there as
``crash-...``, ``timeout-...`` or ``oom-...`` and can be given to ``--target NAME --input FILE``.
Exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import pkgutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

_INPUT_BYTES = 4_096
_SECONDS_PER_INPUT = 10
_MEMORY_MB = 2_048


def main() -> int:
    """Run the targets, or one of them, or one input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--target", help="one target only")
    parser.add_argument("--corpus", type=Path, help="where inputs are kept between runs")
    parser.add_argument("--input", type=Path, help="run the target on this file, without atheris")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return _fuzz(options.target, options.corpus, options.seconds)

    from tests.fuzz.targets import TARGETS, run

    if options.input is not None:
        run(TARGETS[options.target], options.input.read_bytes())
        return 0
    names = [options.target] if options.target else list(TARGETS)
    with tempfile.TemporaryDirectory(prefix="vecdb-fuzz-") as scratch:
        root = options.corpus or Path(scratch)
        failed = [n for n in names if not _run_child(n, root / n, options.seconds // len(names))]
        for name in failed:
            for input_file in sorted((root / name).glob("*-*")):  # crash-, timeout-, oom-
                print(f"{name}: {input_file}: {input_file.read_bytes()!r}")
    print(f"{len(names)} targets, {len(failed)} with findings: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _run_child(name: str, corpus: Path, seconds: int) -> bool:
    from tests.fuzz.seeds import seeds

    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (corpus / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    command = [
        sys.executable, "-m", "tests.fuzz.run", "--child", "--target", name,
        "--corpus", str(corpus), "--seconds", str(max(1, seconds)),
    ]  # fmt: skip
    print(f"== {name}", flush=True)
    return subprocess.run(command, check=False).returncode == 0


def _fuzz(name: str, corpus: Path, seconds: int) -> int:
    import atheris

    import vecdb.kernels

    for module in pkgutil.iter_modules(vecdb.kernels.__path__):
        # Before the others, and so left alone: numba knows nothing of atheris.
        importlib.import_module(f"vecdb.kernels.{module.name}")
    with atheris.instrument_imports(
        include=["vecdb.storage", "vecdb.payload", "vecdb.collection", "vecdb.index"]
    ):
        from tests.fuzz.seeds import seeds
        from tests.fuzz.targets import ALLOWED, TARGETS, run

    target = TARGETS[name]
    for seed in seeds(name):
        with suppress(*ALLOWED):
            target(seed)  # compiles what is compiled at its first use, outside of all limits
    atheris.Setup(
        [
            sys.argv[0], str(corpus), f"-artifact_prefix={corpus}/", f"-max_total_time={seconds}",
            f"-max_len={_INPUT_BYTES}", f"-timeout={_SECONDS_PER_INPUT}",
            f"-rss_limit_mb={_MEMORY_MB}", "-print_final_stats=1", "-verbosity=0",
        ],
        lambda data: run(target, data),
    )  # fmt: skip
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
