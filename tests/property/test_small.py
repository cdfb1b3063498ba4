# SPDX-License-Identifier: Apache-2.0
"""GraphIndex with storage="small": its grid against the twin, its answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import annx
from annx import reference
from strategies import FLOAT_DTYPES, dims, kinds, make_rows, seeds, vector_metrics

float_dtypes = st.sampled_from(FLOAT_DTYPES)
# So many rows make the grid.
ENOUGH = 128
OPTIONS = {"storage": "small", "degree": 4, "ef_construction": 6}


def directions(rows):
    """Rows of length 1, zero rows as they are."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def as_kept(rows, metric):
    """Rows as a grid sees them, float32."""
    wide = np.asarray(rows, np.float32)
    if metric != "cosine":
        return wide
    norms = np.sqrt((wide.astype(np.float64) ** 2).sum(axis=1)).astype(np.float32)
    return np.divide(
        wide, norms[:, None], out=np.zeros_like(wide), where=norms[:, None] > 0
    )


def rounding_of(grid, rows):
    """How far each decoded row may be from the row: half a step a coordinate."""
    _, exponents = grid.encode(rows)
    steps = np.ldexp(grid.step, exponents.astype(int))
    return 0.5001 * steps * np.sqrt(rows.shape[1])


@settings(max_examples=12)
@given(seeds, dims, kinds, vector_metrics, float_dtypes, st.integers(0, 9))
def test_rows_are_those_of_the_grid(seed, dim, kind, metric, dtype, spread):
    rows = make_rows(seed, ENOUGH + 200, dim, kind=kind, dtype=dtype)
    # The last come when the grid is there, some of them outside it.
    with np.errstate(over="ignore"):
        rows[ENOUGH:] *= rows.dtype.type(1 if metric == "cosine" else 2.0**spread)
    rows = rows[np.isfinite(np.asarray(rows, np.float32)).all(axis=1)]
    index = annx.GraphIndex(dim, metric, dtype, seed=seed, **OPTIONS)
    index.add(rows[:ENOUGH])
    kept = as_kept(rows, metric)
    twin = reference.RowGrid(kept[:ENOUGH], turn=metric != "l1", seed=seed)
    grid = index._native.grid()
    index.add(rows[ENOUGH:])
    after = index._native.grid()
    assert after["step"] == grid["step"]
    np.testing.assert_array_equal(after["centre"], grid["centre"])
    facts = index.stats()
    assert facts["byte_rows"]
    assert facts["turned_rows"] == grid["turned"]
    assert facts["reachable"] == len(rows)
    # Which of two bases is finer can hang on the last bit; a step never by more.
    assert grid["step"] == pytest.approx(twin.step, rel=1e-4)
    if grid["turned"] == twin.turned:
        scale = np.abs(kept[:ENOUGH]).max()
        np.testing.assert_allclose(grid["centre"], twin.centre, atol=1e-6 * scale)
        assert abs(facts["wide_rows"] - (twin.encode(kept)[1] > 0).sum()) <= 2
    found = np.asarray(index.get(index.ids), np.float64)
    wide = np.asarray(rows, np.float64)
    allowed = rounding_of(twin, kept)
    if metric == "cosine":
        allowed *= np.linalg.norm(wide, axis=1)
    error = np.linalg.norm(found - wide, axis=1)
    digits = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    lengths = np.linalg.norm(wide, axis=1) + np.linalg.norm(twin.centre)
    assert (error <= 1.01 * allowed + digits * lengths + 1e-7).all()


@settings(max_examples=12)
@given(seeds, dims, kinds, vector_metrics, st.sampled_from((0.0, 1.0, 6.0)))
def test_answers_are_those_of_the_decoded_rows(seed, dim, kind, metric, away):
    rows = make_rows(seed, ENOUGH + 100, dim, kind=kind)
    rows[ENOUGH:] *= 3
    index = annx.GraphIndex(dim, metric, **OPTIONS)
    index.add(rows[:ENOUGH])
    index.add(rows[ENOUGH:])
    questions = make_rows(seed + 1, 4, dim, kind=kind)
    questions += np.float32(away * np.abs(rows).max())
    decoded = np.asarray(index.get(index.ids), np.float64)
    wide = np.asarray(questions, np.float64)
    ids, distances = index.search(questions, k=5, ef=len(rows))
    truth = reference.pairwise_distances(wide, decoded, metric=metric)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    size = np.linalg.norm(decoded, axis=1).max() + lengths
    slack = {
        "cosine": 1e-5,
        "ip": 1e-5 * lengths * size,
        "l1": 1e-5 * np.sqrt(dim) * size,
        "l2": 1e-5 * size * size,
    }[metric]
    there = np.take_along_axis(truth, ids, 1)
    assert (np.abs(distances - there) <= 1e-4 * np.abs(there) + slack).all()
    # Keys are off by the rounding of the query, so the answer by twice that.
    step = index._native.grid()["step"] * 2 ** np.ceil(np.log2(3))
    best = np.sort(truth, axis=1)[:, :5]
    if metric == "ip":
        off = lengths * step * np.sqrt(dim) + np.abs(wide).max() / 100 * size * dim**0.5
    elif metric == "l1":
        off = step * dim
    else:
        far = np.sqrt(2 * best if metric == "cosine" else best)
        off = step * np.sqrt(dim) * (2 * far + step * np.sqrt(dim))
    # Off the grid the products with what is missing are in 8 bits.
    if away:
        off = off + 0.02 * size * size
    assert (distances <= best + 2 * off + slack).all()


@settings(max_examples=2)
@given(seeds, st.sampled_from([2, 5, 13]), st.sampled_from(["l2", "l1"]))
def test_small_whole_numbers_are_walked_as_by_the_reference(seed, dim, metric):
    # Kept exactly, so the graph and every walk are those of the twin.
    rng = np.random.default_rng(seed)
    rows = rng.integers(-90, 90, (1100, dim))
    options = {"degree": 8, "ef_construction": 16, "seed": seed, "metric": metric}
    if metric == "l2":
        options["neighbours"] = reference.exact_search(rows, rows, 13)[0]
    native = annx.GraphIndex.build(rows, storage="small", **options)
    twin = reference.GraphIndex.build(rows, **options)
    np.testing.assert_array_equal(native.get(native.ids), rows)
    questions = rng.integers(-90, 90, (20, dim))
    for k, ef in ((1, 1), (5, 40), (10, 60)):
        ids, distances = native.search(questions, k=k, ef=ef)
        twin_ids, twin_distances = twin.search(questions, k=k, ef=ef)
        np.testing.assert_array_equal(distances, twin_distances)
        np.testing.assert_array_equal(ids, twin_ids)


@settings(max_examples=10)
@given(seeds, dims, st.sampled_from(("l2", "l1", "cosine")), st.floats(0, 40))
def test_keys_off_the_grid_are_near(seed, dim, metric, away):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((ENOUGH, dim)).astype(np.float32)
    rows += 3
    index = annx.GraphIndex(dim, metric, **OPTIONS)
    index.add(rows)
    index.add(rows[:5] * 4)
    query = (away * rng.standard_normal((1, dim))).astype(np.float32)
    decoded = np.asarray(index.get(index.ids), np.float64)
    ids = [*range(20), *range(ENOUGH, ENOUGH + 5)]
    keys = np.array([index._native.estimate_links(query, i)[0] for i in ids])
    if metric == "cosine":
        lengths = np.linalg.norm(rows, axis=1)
        lengths = np.concatenate([lengths, 4 * lengths[:5]])
        truth = ((directions(query) - decoded / lengths[:, None]) ** 2).sum(axis=1)
    else:
        truth = reference.pairwise_distances(query, decoded, metric=metric)[0]
    truth = truth[ids]
    step = index._native.grid()["step"] * 4
    root = np.sqrt(dim)
    if metric == "l1":
        allowed = step * dim
    else:
        # Half a step of the query, and what is missing in 8 bits.
        far = np.sqrt(truth)
        allowed = (
            step * root * (2 * far + step * root) + 2 * far / 127 * root * 128 * step
        )
        if away < 1 and metric == "l2":
            allowed = step * root * (2 * far + step * root)
    assert (np.abs(keys - truth) <= allowed + 1e-4 * np.abs(truth) + 1e-5).all()
