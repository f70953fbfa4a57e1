"""Base and query files for `bench.ann`, from data that is at hand."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

SHARED = Path(__file__).parents[2] / "shared" / "data"
HELD_OUT = 1_000


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    default=SHARED / "pep_sentences_minilm_f16.npy",
    help="The embeddings; by default ../shared/data/pep_sentences_minilm_f16.npy.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
def minilm(source: Path, out: Path) -> None:
    """Sentences of the PEPs as all-MiniLM-L6-v2 embeds them: 100,449 and 1,000, of 384."""
    if not source.exists():
        raise click.ClickException(
            f"{source} is not there. It is not part of the repository; pass embeddings of your own "
            "with --source: an .npy of shape (n, dim)."
        )
    vectors = np.load(source, allow_pickle=False).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_split(vectors, out)


@main.command()
@click.option("--rows", default=100_000, show_default=True)
@click.option("--dim", default=128, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
def clusters(rows: int, dim: int, out: Path) -> None:
    """Vectors drawn around random centres, for when no real data is at hand."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((max(1, rows // 200), dim))
    vectors = centres[rng.integers(len(centres), size=rows + HELD_OUT)]
    write_split((vectors + 0.8 * rng.standard_normal(vectors.shape)).astype(np.float32), out)


def write_split(vectors: np.ndarray, out: Path) -> None:
    """Hold queries out and write both parts."""
    order = np.random.default_rng(1).permutation(len(vectors))
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "queries.npy", vectors[order[:HELD_OUT]])
    np.save(out / "base.npy", vectors[order[HELD_OUT:]])
    click.echo(f"{out / 'base.npy'}: {len(vectors) - HELD_OUT} x {vectors.shape[1]}")
    click.echo(f"{out / 'queries.npy'}: {HELD_OUT}")


if __name__ == "__main__":
    main()
