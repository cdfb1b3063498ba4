# SPDX-License-Identifier: Apache-2.0
"""Small objects of every kind that can be saved, and the questions they must answer.

Vectors are small integers, so answers are the same on every instruction set. A new
kind, or an option that changes what is saved, gets a row in `CASES`; `test_file.py` and
`formats/` use every row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import annx

__all__ = ["CASES", "Case", "integers"]

Answers = dict[str, Any]


class Case(NamedTuple):
    """How to make an object (from a seed and a size) and what it answers."""

    kind: str
    make: Callable[[int, int], Any]
    ask: Callable[[Any], Answers]


@functools.lru_cache(256)
def integers(seed: int, n: int, dim: int, dtype: str = "float32") -> np.ndarray:
    """Small integers, (n, dim), as an index of a dtype takes them; read-only."""
    if dtype == "bits":
        bits = np.random.default_rng(seed).integers(0, 2, (n, dim), dtype=np.uint8)
        rows = np.packbits(bits, axis=1, bitorder="little")
    else:
        if dtype in ("float16", "bfloat16"):
            dtype = "float32"
        low = 0 if dtype == "uint8" else -8
        rows = np.random.default_rng(seed).integers(low, 9, (n, dim)).astype(dtype)
    rows.flags.writeable = False
    return rows


def index_case(
    kind: str,
    cls: Any,
    dim: int,
    metric: str = "l2",
    dtype: str = "float32",
    *,
    given_ids: bool = False,
    removed: int = 0,
    empty: bool = False,
    scale: float | None = None,
    **options: Any,
) -> Case:
    """An index of `size` rows, some of which may be removed again."""

    def scaled(rows: np.ndarray) -> np.ndarray:
        return rows if scale is None else (rows * scale).astype(rows.dtype)

    def make(seed: int, size: int) -> Any:
        index = cls(dim, metric, dtype, **options)
        if empty:
            return index
        rows = scaled(integers(seed, size, dim, dtype))
        ids = np.arange(size)[::-1] * 3 + 7 if given_ids else None
        index.add(rows, ids)
        if removed:
            index.remove(index.ids[:removed])
        return index

    def ask(index: Any) -> Answers:
        # Of the width that the index says: a hostile file may say another.
        if index.dim > 1 << 16:
            return {"dim": index.dim}
        queries = scaled(integers(99, 4, index.dim, index.dtype))
        ids, distances = index.search(queries, 5)
        single = index.search(queries[0], 3).ids
        stored_ids = index.ids
        with np.errstate(invalid="ignore"):  # damage makes signalling NaNs
            rows = np.asarray(index.get(stored_ids[:20])).astype(np.float64)
        return {
            "dim": index.dim,
            "metric": index.metric,
            "dtype": index.dtype,
            "ids": ids.tolist(),
            "distances": distances.tolist(),
            "single": single.tolist(),
            "stored": stored_ids.tolist(),
            "rows": rows.tolist(),
        }

    return Case(kind, make, ask)


def graph_small_case(metric: str = "l2", dtype: str = "float32") -> Case:
    """A graph over codes: `size` rows and enough for a grid, and some outside it."""
    base = index_case("graph", annx.GraphIndex, 6, metric, dtype)

    def make(seed: int, size: int) -> Any:
        index = annx.GraphIndex(
            6, metric, dtype, storage="small", degree=4, ef_construction=8
        )
        index.add(integers(seed, size + 128, 6, dtype))
        index.add(64 * integers(seed + 1, 5, 6, dtype))
        return index

    return base._replace(make=make)


def pq_flat_case(metric: str = "l2") -> Case:
    """A trained index over codes of 4 bits, with `size` rows."""
    base = index_case("pq_flat", annx.PQFlatIndex, 6, metric)

    def make(seed: int, size: int) -> Any:
        index = annx.PQFlatIndex(6, metric, n_segments=3, n_bits=4, n_iterations=3)
        index.train(integers(5, 40, 6))
        index.add(integers(seed, size, 6))
        return index

    return base._replace(make=make)


def ivf_case(metric: str = "l2", dtype: str = "float32", **options: Any) -> Case:
    """A trained inverted file with `size` rows, one removed and one replaced."""
    base = index_case("ivf", annx.IVFIndex, 6, metric, dtype)

    def make(seed: int, size: int) -> Any:
        index = annx.IVFIndex(
            6, metric, dtype, n_lists=3, n_iterations=3, n_probe=3, **options
        )
        rows = 300 if options.get("codec") == "pq8" else 40
        index.train(integers(5, rows, 6, dtype))
        index.add(integers(seed, size, 6, dtype))
        if size > 2:
            index.remove([1])
            index.upsert(integers(seed + 1, 1, 6, dtype), [0])
        return index

    return base._replace(make=make)


def kd_forest_case(dim: int, metric: str = "l2", **options: Any) -> Case:
    """Trees over `size` rows and 40 more, of which a few are removed, and 5 without."""
    base = index_case("kd_forest", annx.KDForestIndex, dim, metric)

    def make(seed: int, size: int) -> Any:
        index = annx.KDForestIndex(dim, metric, **options)
        index.add(integers(seed, size + 40, dim), np.arange(size + 40)[::-1] * 3 + 7)
        index.add(integers(seed + 1, 5, dim))
        index.remove(index.ids[:3])
        return index

    return base._replace(make=make)


def lsh_case(metric: str, dtype: str = "float32", **options: Any) -> Case:
    """Tables of `size` rows and 20 more, of which a few are removed, and 3 outside."""
    base = index_case("lsh", annx.LSHIndex, 12, metric, dtype)

    def make(seed: int, size: int) -> Any:
        index = annx.LSHIndex(12, metric, dtype, **options)
        ids = np.arange(size + 20)[::-1] * 3 + 7
        index.add(integers(seed, size + 20, 12, dtype), ids)
        index.add(integers(seed + 1, 3, 12, dtype))
        index.remove(index.ids[:3])
        return index

    return base._replace(make=make)


def kmeans_case(*, trained: bool = True, **options: Any) -> Case:
    """A clustering of `size` rows, or none yet."""

    def make(seed: int, size: int) -> Any:
        clustering = annx.KMeans(3, seed=seed, n_iterations=4, **options)
        return clustering.train(integers(seed, size, 5)) if trained else clustering

    def ask(clustering: Any) -> Answers:
        answers: Answers = {
            "n_clusters": clustering.n_clusters,
            "trained": clustering.trained,
        }
        if clustering.trained and clustering.dim <= 1 << 16:
            centroids = clustering.centroids
            queries = integers(99, 6, clustering.dim)
            labels, distances = clustering.assign(queries)
            answers |= {
                "centroids": centroids.tolist(),
                "labels": labels.tolist(),
                "distances": distances.tolist(),
                "objectives": clustering.objectives.tolist(),
            }
        return answers

    return Case("kmeans", make, ask)


def product_case(dim: int, n_segments: int, **options: Any) -> Case:
    """A product quantizer of 4 bits, trained on `size` rows but at least 16."""

    def make(seed: int, size: int) -> Any:
        quantizer = annx.ProductQuantizer(
            dim, n_segments, n_bits=4, n_iterations=3, seed=seed, **options
        )
        return quantizer.train(integers(seed, max(size, 20), dim))

    def ask(quantizer: Any) -> Answers:
        answers: Answers = {"dim": quantizer.dim, "trained": quantizer.trained}
        if quantizer.trained and quantizer.dim <= 1 << 12:
            queries = integers(99, 6, quantizer.dim)
            codes = quantizer.encode(queries)
            answers |= {
                "metric": quantizer.metric,
                "codes": codes.tolist(),
                "decoded": quantizer.decode(codes).tolist(),
                "distances": quantizer.asymmetric_distances(queries[0], codes).tolist(),
                "symmetric": quantizer.symmetric_distances(codes, codes).tolist(),
            }
        return answers

    return Case("pq", make, ask)


def chain(seed: int, query_dim: int = 6) -> Any:
    """A step of every kind, 6 to 6 dimensions, of small integers where that can be."""
    steps = annx.transforms
    return steps.Chain(
        steps.Bilinear(integers(seed, query_dim, 6)),
        steps.Linear(integers(seed + 1, 8, 6)),
        steps.Mask(8, [7, 0, 1, 2, 3, 5]),
        steps.Centre(integers(seed + 2, 1, 6)[0]),
        steps.PCA(np.eye(6)[::-1], variances=[4, 1, 4, 0, 16, 1], whiten=True),
        steps.Normalise(6),
        steps.Rotation(6, seed=seed),
    )


def transform_case(query_dim: int, *, whole: bool = True) -> Case:
    """A chain, or one step of it."""

    def make(seed: int, size: int) -> Any:
        del size
        found = chain(seed, query_dim)
        return found if whole else found.parts[0]

    def ask(transform: Any) -> Answers:
        answers: Answers = {"repr": repr(transform)}
        if max(transform.query_dim, transform.input_dim) <= 1 << 12:
            queries = integers(98, 3, transform.query_dim)
            vectors = integers(99, 3, transform.input_dim)
            try:
                answers["queries"] = transform.transform_queries(queries).tolist()
                answers["vectors"] = transform.transform(vectors).tolist()
            except ValueError:  # damage makes infinities
                answers["queries"] = "out of range"
        return answers

    return Case("transform", make, ask)


def transformed_case(cls: Any, **options: Any) -> Case:
    """An index behind a chain, with `size` rows."""
    base = index_case("transformed", cls, 6)

    def make(seed: int, size: int) -> Any:
        index = annx.TransformedIndex(cls(6, **options), chain(seed))
        index.add(integers(seed, size, 6))
        return index

    def ask(index: Any) -> Answers:
        try:
            return base.ask(index)
        except ValueError:  # damage makes infinities
            return {"dim": index.dim}

    return Case("transformed", make, ask)


CASES: dict[str, Case] = {
    "flat": index_case("flat", annx.FlatIndex, 6),
    "flat-cosine": index_case("flat", annx.FlatIndex, 5, "cosine", given_ids=True),
    "flat-int8": index_case("flat", annx.FlatIndex, 7, "ip", "int8", removed=3),
    "flat-float16": index_case("flat", annx.FlatIndex, 3, "l1", "float16"),
    "flat-bits": index_case("flat", annx.FlatIndex, 19, "hamming", "bits"),
    "flat-poincare": index_case("flat", annx.FlatIndex, 4, "poincare", scale=1 / 32),
    "flat-empty": index_case("flat", annx.FlatIndex, 4, empty=True),
    "graph": index_case("graph", annx.GraphIndex, 6, degree=4),
    "graph-cosine": index_case(
        "graph", annx.GraphIndex, 5, "cosine", given_ids=True, degree=4
    ),
    "graph-ip-int8": index_case("graph", annx.GraphIndex, 7, "ip", "int8", degree=8),
    "graph-bfloat16": index_case("graph", annx.GraphIndex, 3, "l1", "bfloat16"),
    "graph-ip-float16": index_case(
        "graph", annx.GraphIndex, 3, "ip", "float16", degree=4
    ),
    "graph-poincare": index_case(
        "graph", annx.GraphIndex, 4, "poincare", scale=1 / 32, degree=4
    ),
    "graph-small": graph_small_case(),
    "graph-small-cosine": graph_small_case("cosine", "float16"),
    "graph-empty": index_case("graph", annx.GraphIndex, 4, empty=True),
    "ivf": ivf_case(),
    "ivf-cosine": ivf_case("cosine", codec="pq4"),
    "ivf-ip-int8": ivf_case("ip", "int8"),
    "ivf-float16": ivf_case(storage="float16"),
    "ivf-codes": ivf_case(storage="codes"),
    "ivf-sq4": ivf_case("ip", storage="sq4", codec="pq4"),
    "ivf-rabitq5": ivf_case(storage="codes", bits=5),
    "ivf-rotated": ivf_case(codec="pq4", rotation="random"),
    "ivf-pq8": ivf_case(codec="pq8", residual=False),
    "ivf-opq": ivf_case("ip", codec="pq4", rotation="opq", n_segments=3),
    "ivf-spill": ivf_case("cosine", spill=1.0),
    "ivf-spill-sq8": ivf_case(spill=0.5, storage="sq8"),
    "ivf-flat": ivf_case("cosine", codec="flat"),
    "ivf-flat-bits": ivf_case("jaccard", "bits", codec="flat"),
    "kd-forest": kd_forest_case(3),
    "kd-forest-cosine": kd_forest_case(5, "cosine", n_trees=2),
    "kd-forest-l1": kd_forest_case(40, "l1"),
    "kd-forest-empty": index_case("kd_forest", annx.KDForestIndex, 4, empty=True),
    "lsh": lsh_case("l2", n_tables=1, sketch_bits=64),
    "lsh-cosine": lsh_case("cosine", "float16", n_tables=2, sketch_bits=64),
    "lsh-jaccard": lsh_case("jaccard", "bits", n_tables=1),
    "lsh-empty": index_case("lsh", annx.LSHIndex, 4, empty=True),
    "kmeans": kmeans_case(),
    "kmeans-spherical": kmeans_case(spherical=True, init="random"),
    "kmeans-untrained": kmeans_case(trained=False),
    "pq-flat": pq_flat_case(),
    "pq-flat-cosine": pq_flat_case("cosine"),
    "pq": product_case(5, 3),
    "pq-cosine": product_case(4, 1, metric="cosine"),
    "transform": transform_case(9),
    "transform-one": transform_case(3, whole=False),
    "transformed-flat": transformed_case(annx.FlatIndex),
    "transformed-graph": transformed_case(annx.GraphIndex, degree=4),
}
