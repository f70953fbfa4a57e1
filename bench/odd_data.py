"""Data that a calibration is easily wrong about: few coordinates, uneven ones, rows in an order.

    python -m bench.odd_data pareto --out FOLDER

writes `base.npy` and `queries.npy` for `bench.target_recall`. Rows are drawn at random, but those
of `moved` and `parade` come in an order, for its `--first`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

QUERIES = 800
Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Takes how many rows, and draws them; queries are drawn as the last rows are."""


def uniform(rng: np.random.Generator, rows: int) -> np.ndarray:
    """5 coordinates; l2."""
    return rng.random((rows, 5))


def circle(rng: np.random.Generator, rows: int) -> np.ndarray:
    """2 coordinates; cosine."""
    return rng.standard_normal((rows, 2))


def lopsided(rng: np.random.Generator, rows: int) -> np.ndarray:
    """16 coordinates, the first 100,000 times as large; l2."""
    return rng.standard_normal((rows, 16)) * np.where(np.arange(16) == 0, 1e5, 1)


def bits(rng: np.random.Generator, rows: int) -> np.ndarray:
    """64 coordinates, 0 or 1; l2."""
    return rng.integers(0, 2, (rows, 64))


def positive(rng: np.random.Generator, rows: int) -> np.ndarray:
    """64 coordinates above 0, of uneven lengths; dot."""
    return rng.random((rows, 64)) * np.exp(0.5 * rng.standard_normal((rows, 1)))


def pareto(rng: np.random.Generator, rows: int) -> np.ndarray:
    """48 coordinates, some rows far longer than most; dot."""
    return rng.standard_normal((rows, 48)) * (rng.pareto(1.5, (rows, 1)) + 0.1)


def giant(rng: np.random.Generator, rows: int) -> np.ndarray:
    """32 coordinates, the first row 10,000 times as long; dot."""
    lengths = np.where(np.arange(rows) == 0, 1e4, 1)
    return rng.standard_normal((rows, 32)) * lengths[:, None]


def dense(rng: np.random.Generator, rows: int) -> np.ndarray:
    """16 coordinates, nine rows in ten in one narrow place among the others; l2."""
    drawn = rng.standard_normal((rows, 16))
    return np.where(rng.random((rows, 1)) < 0.9, 3 + 0.01 * drawn, 3 * drawn)


def templates(rng: np.random.Generator, rows: int) -> np.ndarray:
    """384 coordinates of unit norm, the last third of the rows within .02 of one row; cosine."""
    drawn = rng.standard_normal((rows, 384))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    alike = np.arange(rows) >= rows * 2 // 3
    drawn[alike] = drawn[0] + 0.02 * drawn[alike]
    return drawn


def moved(rng: np.random.Generator, rows: int) -> np.ndarray:
    """32 coordinates, the last third in one narrow place far from the others; l2."""
    late = (np.arange(rows) >= rows * 2 // 3)[:, None]
    drawn = rng.standard_normal((rows, 32))
    return np.where(late, 30 + 0.05 * drawn, drawn)


def parade(rng: np.random.Generator, rows: int) -> np.ndarray:
    """32 coordinates, 40 clusters, one after the other; l2."""
    centres = 2 * rng.standard_normal((40, 32))
    return centres[np.arange(rows) * 40 // rows] + 0.3 * rng.standard_normal((rows, 32))


KINDS: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (
        *(uniform, circle, lopsided, bits, positive, pareto, giant),
        *(dense, templates, moved, parade),
    )
}
_QUERIES_FROM = {"moved": 2 / 3, "templates": 2 / 3}
"""Where among the rows queries are drawn; for others, anywhere."""


@click.command(help=__doc__)
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--rows", type=click.IntRange(min=2 * QUERIES), default=20_000, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
def main(kind: str, rows: int, out: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = KINDS[kind](rng, rows + QUERIES).astype(np.float32)
    first = int(_QUERIES_FROM.get(kind, 0) * len(drawn)) or 1  # the first of `giant` is a row
    held = np.zeros(len(drawn), np.bool_)
    held[rng.choice(np.arange(first, len(drawn)), QUERIES, replace=False)] = True
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "queries.npy", drawn[held])
    np.save(out / "base.npy", drawn[~held])
    click.echo(f"{out / 'base.npy'}: {np.count_nonzero(~held)} x {drawn.shape[1]}")


if __name__ == "__main__":
    main()
