# SPDX-License-Identifier: Apache-2.0
"""What transforms cost, beside NumPy, faiss and scikit-learn, on one thread.

python -m bench.transforms [--set fashion-mnist-784] [--dim 128] [--repeats 5]

Processor time, the engines in turns in one process, medians. Then what one query pays
for a transform before a flat index of one vector, and what fewer components do to the
recall of an exact search.
"""

from __future__ import annotations

import argparse
import statistics
import time

from bench.kmeans import load_set  # first: it limits the threads of BLAS

import annx  # isort: skip
import numpy as np  # isort: skip
from annx.transforms import PCA, Centre, Linear, Mask, Normalise, Rotation  # isort: skip

CALLS = 2000


def in_turns(calls, repeats, times=1):
    """Median seconds of each call, and the least and most."""
    taken = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(times):
                call()
            taken[name].append((time.process_time() - start) / times)
    return {
        name: (statistics.median(seconds), min(seconds), max(seconds))
        for name, seconds in taken.items()
    }


def report(title, measured, unit, scale):
    """One line an engine."""
    print(f"\n{title}")
    for name, seconds in measured.items():
        middle, least, most = (scale * s for s in seconds)
        print(f"  {name:28s} {middle:10.3f} {unit}  ({least:.3f} to {most:.3f})")


def fitting(base, dim):
    """Components of all rows."""
    calls = {"annx PCA.fit": lambda: PCA.fit(base, dim)}
    try:
        import faiss

        calls["faiss PCAMatrix.train"] = lambda: faiss.PCAMatrix(
            base.shape[1], dim
        ).train(base)
    except ImportError:
        print("faiss is not installed")
    try:
        from sklearn.decomposition import PCA as Sklearn

        calls["scikit-learn covariance_eigh"] = lambda: Sklearn(
            dim, svd_solver="covariance_eigh"
        ).fit(base)
    except ImportError:
        print("scikit-learn is not installed")
    return calls


def products(base, pca):
    """A batch through the matrix."""
    matrix = Linear(pca.components)
    turned = pca.components.T
    calls = {
        "annx Linear": lambda: matrix.transform(base, threads=1),
        "annx PCA": lambda: pca.transform(base, threads=1),
        "NumPy matmul": lambda: base @ turned,
    }
    try:
        import faiss

        known = faiss.LinearTransform(base.shape[1], pca.dim, False)
        faiss.copy_array_to_vector(pca.components.ravel(), known.A)
        known.is_trained = True
        calls["faiss LinearTransform"] = lambda: known.apply(base)
    except ImportError:
        pass
    return calls


def main():
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="fashion-mnist-784")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    base, queries = load_set(options.set)[:2]
    base = np.ascontiguousarray(base, np.float32)
    queries = np.ascontiguousarray(queries[:500], np.float32)
    n, width = base.shape
    pca = PCA.fit(base, options.dim)
    print(f"{options.set}: {n} x {width} to {options.dim}")
    report("fitting", in_turns(fitting(base, options.dim), 3), "s", 1)
    batch = base[:20_000]
    report(
        f"a batch of {len(batch)}",
        in_turns(products(batch, pca), options.repeats),
        "ms",
        1e3,
    )
    one = queries[0]
    matrix = pca.components
    steps = {
        "annx PCA": pca,
        "annx Linear": Linear(matrix),
        "annx Rotation": Rotation(width),
        "annx Normalise": Normalise(width),
        "annx Centre": Centre(base[0]),
        "annx Mask": Mask(width, np.arange(options.dim)),
    }
    calls = {
        name: (lambda step=step: step.transform_queries(one))
        for name, step in steps.items()
    }
    calls["NumPy matmul"] = lambda: matrix @ one
    report("one query", in_turns(calls, options.repeats, CALLS), "us", 1e6)

    small = annx.FlatIndex(options.dim)
    small.add(np.zeros((1, options.dim), np.float32))
    both = annx.TransformedIndex(small, pca)
    short = pca.transform_queries(one)
    calls = {
        "search, transformed before": lambda: small.search(short, 1),
        "search behind the transform": lambda: both.search(one, 1),
        "the transform by itself": lambda: pca.transform_queries(one),
    }
    report("a search of one vector", in_turns(calls, options.repeats, CALLS), "us", 1e6)

    truth = annx.exact_search(queries, base, 10, threads=1).ids
    print("\nexact search over components: recall@10 of the whole space, ms a query")
    for dim in (width, 256, 128, 64, 32):
        if dim > width:
            continue
        index = annx.TransformedIndex(annx.FlatIndex(dim), PCA.fit(base, dim))
        index.add(base)
        start = time.process_time()
        found = index.search(queries, 100, threads=1).ids
        spent = 1e3 * (time.process_time() - start) / len(queries)
        hits = [
            [np.isin(t, f[:k]).mean() for t, f in zip(truth, found, strict=True)]
            for k in (10, 100)
        ]
        print(
            f"  {dim:4d} components: {np.mean(hits[0]):.4f}, among the first 100 "
            f"{np.mean(hits[1]):.4f}; {spent:.3f} ms"
        )


if __name__ == "__main__":
    main()
