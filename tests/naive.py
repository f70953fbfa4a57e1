"""What the kernels compute, written plainly: the oracles of their tests."""

from __future__ import annotations

import heapq

import numpy as np


def distance(metric: str, a: np.ndarray, b: np.ndarray) -> float:
    """1 - cosine, 1 - inner product, or squared Euclidean distance, in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "l2":
        return float(((a - b) ** 2).sum())
    if metric == "cosine":
        return float(1 - a @ b / np.sqrt((a @ a) * (b @ b)))
    return float(1 - a @ b)


def distances(metric: str, queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """All distances, shape (queries, vectors), in float64."""
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return ((q[:, None] - x[None]) ** 2).sum(-1)
    if metric == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return 1 - q @ x.T


def nearest(
    metric: str, queries: np.ndarray, vectors: np.ndarray, k: int, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest allowed rows of each query, by distance and then row, padded."""
    rows = np.full((len(queries), k), -1, np.int64)
    found = np.full((len(queries), k), np.inf)
    if len(vectors) == 0:
        return rows, found
    table = distances(metric, queries, vectors)
    allowed = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    for q, line in enumerate(table):
        best = allowed[np.argsort(line[allowed], kind="stable")][:k]
        rows[q, : len(best)] = best
        found[q, : len(best)] = line[best]
    return rows, found


def select_neighbours(
    metric: str, vectors: np.ndarray, base: int, candidates: list[int], most: int
) -> list[int]:
    """Algorithm 4 of Malkov & Yashunin, over candidates sorted; `metric` tells who hides whom."""
    if len(candidates) < most:
        return list(candidates)
    kept: list[int] = []
    for node in candidates:
        to_base = distance(metric, vectors[node], vectors[base])
        if all(distance(metric, vectors[node], vectors[other]) >= to_base for other in kept):
            kept.append(node)
            if len(kept) == most:
                break
    return kept


def search_layer(
    metric: str, vectors: np.ndarray, links: dict[int, list[int]], query: np.ndarray, entry: int,
    ef: int,
) -> list[int]:  # fmt: skip
    """Algorithm 2 of Malkov & Yashunin: the ef nearest nodes found from `entry`, nearest first."""
    start = distance(metric, query, vectors[entry])
    seen, candidates, found = {entry}, [(start, entry)], [(-start, entry)]
    while candidates:
        nearest_distance, node = heapq.heappop(candidates)
        if nearest_distance > -found[0][0] and len(found) == ef:
            break
        for other in links[node]:
            if other in seen:
                continue
            seen.add(other)
            this = distance(metric, query, vectors[other])
            if len(found) < ef or this < -found[0][0]:
                heapq.heappush(candidates, (this, other))
                heapq.heappush(found, (-this, other))
                if len(found) > ef:
                    heapq.heappop(found)
    return [node for _, node in sorted((-d, node) for d, node in found)]
