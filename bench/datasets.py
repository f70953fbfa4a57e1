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
@click.option("--rows", type=int, help="As many, mixed from pairs of them; all as they are.")
@click.option("--joined", default=1, show_default=True, help="Embeddings side by side in a row.")
@click.option("--lengths", is_flag=True, help="Of different lengths, instead of 1.")
@click.option("--repeated", default=0.0, show_default=True, help="Share that are copies of others.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
def minilm(
    source: Path, rows: int | None, joined: int, lengths: bool, repeated: float, out: Path
) -> None:
    """Sentences of the PEPs as all-MiniLM-L6-v2 embeds them: 100,449 and 1,000, of 384.

    The options make of them what else an index meets: more rows, more dimensions (sentences that
    follow each other, side by side), other lengths, duplicates.
    """
    if not source.exists():
        raise click.ClickException(
            f"{source} is not there. It is not part of the repository; pass embeddings of your own "
            "with --source: an .npy of shape (n, dim)."
        )
    vectors = np.load(source, allow_pickle=False).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rng = np.random.default_rng(2)
    if joined > 1:
        vectors = np.hstack([np.roll(vectors, -shift, axis=0) for shift in range(joined)])
    if rows is not None:
        vectors = mixed(vectors, rows + HELD_OUT, rng)
    if lengths:
        vectors *= rng.lognormal(0, 0.3, (len(vectors), 1)).astype(np.float32)
    copies = rng.choice(len(vectors), round(repeated * len(vectors)), replace=False)
    vectors[copies] = vectors[rng.integers(len(vectors), size=len(copies))]
    write_split(vectors, out)


@main.command()
@click.option("--rows", default=100_000, show_default=True)
@click.option("--dim", default=128, show_default=True)
@click.option(
    "--spread", default=0.8, show_default=True, help="Of a cluster, beside its centre's 1."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
def clusters(rows: int, dim: int, spread: float, out: Path) -> None:
    """Vectors drawn around random centres, one for 200: when no real data is at hand."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((max(1, rows // 200), dim))
    vectors = centres[rng.integers(len(centres), size=rows + HELD_OUT)]
    write_split((vectors + spread * rng.standard_normal(vectors.shape)).astype(np.float32), out)


def mixed(vectors: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Mix each row from a vector, one of another sentence, and noise; of length 1."""
    made = np.empty((rows, vectors.shape[1]), np.float32)
    for first in range(0, rows, 65_536):
        part = made[first : first + 65_536]
        one, other = rng.integers(len(vectors), size=(2, len(part)))
        share = rng.uniform(0, 0.5, (len(part), 1)).astype(np.float32)
        part[:] = (1 - share) * vectors[one] + share * vectors[other]
        part += rng.standard_normal(part.shape, np.float32) * np.float32(0.3 / part.shape[1] ** 0.5)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


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
