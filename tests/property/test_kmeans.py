# SPDX-License-Identifier: Apache-2.0
"""k-means against its twin: exact on whole numbers, step by step elsewhere."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from annx import _core
from annx.reference import codec as reference

COUNTS = st.integers(1, 120)


@given(own.seeds, COUNTS, own.dims, own.kinds, st.integers(1, 40))
def test_assign_equals_reference(seed, n, dim, kind, k):
    x = own.make_rows(seed, n + k, dim, kind=kind)
    model = annx.KMeans(k, init=x[n:], n_iterations=0).train(x)
    ids, distances = model.assign(x)
    if kind in ("integer", "ties"):
        expected, squares = reference.nearest(x, x[n:])
        assert np.array_equal(ids, expected)
        assert np.array_equal(distances, squares)
        return
    squares = ((x[:, None].astype(np.float64) - x[None, n:]) ** 2).sum(-1)
    bound = (dim / 32 + 8) * 2.0**-23 * squares.min(1) + 1e-30
    assert (np.abs(distances - squares.min(1)) <= bound).all()
    assert (squares[np.arange(len(x)), ids] - squares.min(1) <= bound).all()


@given(own.seeds, COUNTS, own.dims, own.kinds, st.integers(1, 20), st.booleans())
def test_update_equals_reference(seed, n, dim, kind, k, spherical):
    x = own.make_rows(seed, n, dim, kind=kind)
    cells = np.random.default_rng(seed).integers(0, k, n).astype(np.uint32)
    old = own.make_rows(seed + 1, k, dim)
    native = _core.move_centroids(x, cells, old, spherical)
    twin = reference.move_centroids(x, cells, old, spherical=spherical)
    scale = np.abs(x).max(initial=1.0) if not spherical else 1.0
    assert np.allclose(native, twin, rtol=1e-6, atol=1e-6 * scale)
    if kind in ("integer", "ties") and not spherical:
        assert np.array_equal(native, twin)


@given(
    own.seeds,
    st.integers(0, 100),
    own.small_dims,
    st.integers(1, 30),
    st.sampled_from(("random", "k-means++")),
)
def test_start_and_first_update_equal_reference(seed, extra, dim, k, init):
    x = own.make_rows(seed, k + extra, dim, kind="integer")
    options = {"init": init, "n_iterations": 1, "seed": seed}
    native = annx.KMeans(k, **options).train(x)
    twin = reference.KMeans(k, **options).train(x)
    assert native.objectives[0] == twin.objectives[0]
    assert np.array_equal(native.centroids, twin.centroids)


@given(own.seeds, COUNTS, own.dims, own.kinds, st.integers(1, 40), st.booleans())
def test_objective_never_rises(seed, n, dim, kind, k, spherical):
    x = own.make_rows(seed, n + k, dim, kind=kind)
    model = annx.KMeans(k, n_iterations=12, spherical=spherical, seed=seed).train(x)
    slack = 1e-6 * float((x.astype(np.float64) ** 2).sum())
    assert all(b <= a * (1 + 1e-6) + slack for a, b in pairwise(model.objectives))
    # Bounds carried over iterations must have missed nothing: a fresh assignment to
    # the same centroids finds the same objective.
    _, distances = model.assign(x)
    assert np.isclose(distances.sum(dtype=np.float64), model.objective, rtol=1e-6)
