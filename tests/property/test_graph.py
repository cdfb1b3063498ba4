# SPDX-License-Identifier: Apache-2.0
"""GraphIndex held to its twin, and to what must be true of any graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import annx
from annx import reference
from strategies import (
    dims,
    kinds,
    ks,
    lay_out,
    layouts,
    make_rows,
    seeds,
    small_dims,
    vector_dtypes,
    vector_metrics,
)

degrees = st.sampled_from((4, 8, 16))


def stored(index):
    """The vectors of an index as float64, in the order of its ids."""
    return np.asarray(index.get(index.ids), np.float64)


def stored_as(index):
    """The vectors of an index as `exact_search` takes them, in the order of ids."""
    return index.get(index.ids)


def shared(found, truth):
    """The mean share of `truth` that was found."""
    pairs = zip(found, truth, strict=True)
    return np.mean([np.isin(row, right).mean() for row, right in pairs])


def queries_for(rows, dtype):
    return rows if dtype in ("int8", "uint8") else np.asarray(rows, np.float32)


@given(
    seeds,
    st.integers(1, 90),
    small_dims,
    degrees,
    st.sampled_from(("l2", "l1")),
    st.sampled_from(("integer", "ties", "duplicates")),
    st.sampled_from((1, 5, 40)),
)
def test_graph_equals_reference_link_for_link(seed, n, dim, degree, metric, kind, ef):
    rows = make_rows(seed, n, dim, kind=kind)
    options = {"metric": metric, "degree": degree, "ef_construction": ef, "seed": seed}
    native = annx.GraphIndex.build(rows[: n // 2 + 1], threads=1, **options)
    native.add(rows[n // 2 + 1 :])
    twin = reference.GraphIndex.build(rows[: n // 2 + 1], **options)
    twin.add(rows[n // 2 + 1 :])
    for id in range(n):
        assert native.neighbours(id).tolist() == twin.neighbours(id).tolist()
    ids, distances = native.search(rows[:7], k=3, ef=4)
    twin_ids, twin_distances = twin.search(rows[:7], k=3, ef=4)
    np.testing.assert_array_equal(distances, twin_distances)
    np.testing.assert_array_equal(ids, twin_ids)


@given(
    seeds,
    st.integers(1, 300),
    st.sampled_from([1, 3, 7]),
    st.integers(1, 12),
    st.sampled_from([4, 8, 16]),
    st.sampled_from([1.0, 1.5]),
    st.integers(1, 9),
)
def test_graph_of_known_neighbours_equals_the_reference(
    seed, n, dim, k, degree, alpha, spread
):
    # Small numbers: many equal rows, many ties, and distances exact in every type.
    rows = np.random.default_rng(seed).integers(-spread, spread, (n, dim))
    near = reference.exact_search(rows, rows, min(k + 1, n))[0]
    options = {"degree": degree, "alpha": alpha, "seed": seed, "neighbours": near}
    # A level above the first of at most 25 rows lists all the others.
    native = annx.GraphIndex.build(rows, **options)
    twin = reference.GraphIndex.build(rows, **options)
    levels = reference.graph.find_levels(near.tolist(), twin._keys, seed)
    assume(all(len(level) <= 25 for level in levels[1:]))
    for id in range(n):
        assert native.neighbours(id).tolist() == twin.neighbours(id).tolist()
    assert native.stats()["reachable"] == n


@settings(max_examples=2)
@given(seeds, st.sampled_from([2, 5, 13]), st.sampled_from(["l2", "l1"]))
def test_walk_that_ends_early_equals_the_reference(seed, dim, metric):
    # Enough rows that the index measures how its neighbours grow.
    rng = np.random.default_rng(seed)
    rows = rng.integers(-90, 90, (1100, dim))
    options = {"degree": 8, "ef_construction": 16, "seed": seed, "metric": metric}
    if metric == "l2":
        options["neighbours"] = reference.exact_search(rows, rows, 13)[0]
    native = annx.GraphIndex.build(rows, storage="plain", **options)
    twin = reference.GraphIndex.build(rows, **options)
    growth = native.stats()["growth"]
    assert growth == pytest.approx(twin.growth, rel=1e-5)
    assert 0.3 * dim < growth * (1 if metric == "l1" else 2) < 2 * dim
    # Queries that lie away have neighbours that are more alike.
    queries = rng.integers(90, 200, (40, dim))
    for index in (native, twin):
        index.add(rows[:0], queries=queries)
    away = native.stats()["growth"]
    assert away == pytest.approx(twin.growth, rel=1e-5)
    assert away > growth
    questions = rng.integers(-90, 90, (20, dim))
    for k, ef in ((1, 1), (1, 20), (5, 40), (10, 10), (10, 60)):
        ids, distances = native.search(questions, k=k, ef=ef)
        twin_ids, twin_distances = twin.search(questions, k=k, ef=ef)
        np.testing.assert_array_equal(distances, twin_distances)
        np.testing.assert_array_equal(ids, twin_ids)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_walk_by_angles_ends_where_the_reference_one_does(dtype):
    # Keys are inner products, of the query as it came for 8-bit rows: a walk ends at a
    # multiple of the distance from the least of them.
    rng = np.random.default_rng(3)
    rows = rng.integers(-90, 90, (1100, 13)).astype(dtype)
    near = reference.exact_search(rows, rows, 13, metric="cosine")[0]
    options = {"degree": 4, "metric": "cosine", "dtype": dtype, "neighbours": near}
    native = annx.GraphIndex.build(rows, storage="plain", **options)
    twin = reference.GraphIndex.build(rows, **options)
    questions = rng.integers(-90, 90, (40, 13)).astype(dtype)
    for k, ef in ((1, 1), (1, 3), (5, 8), (10, 10), (10, 20)):
        ids = native.search(questions, k=k, ef=ef).ids
        # Few angles are so alike that rounding swaps them.
        assert (ids == twin.search(questions, k=k, ef=ef)[0]).mean() > 0.9


@given(
    seeds,
    st.integers(1, 120),
    small_dims,
    degrees,
    st.sampled_from(("l2", "l1")),
    st.sampled_from(("integer", "ties", "duplicates")),
    st.sampled_from((1, 5, 40)),
    st.integers(0, 140),
)
def test_links_for_queries_equal_the_reference(
    seed, n, dim, degree, metric, kind, ef, count
):
    rows = make_rows(seed, n, dim, kind=kind)
    # Some lie away from the vectors, some are vectors, some come twice.
    queries = make_rows(seed + 1, count, dim, kind="ties") + 2
    queries[::5] = rows[np.arange(len(queries[::5])) % n]
    options = {"metric": metric, "degree": degree, "ef_construction": ef, "seed": seed}
    first = n // 2 + 1
    native = annx.GraphIndex.build(rows[:first], queries=queries[:70], **options)
    native.add(rows[first:], queries=queries[70:])
    twin = reference.GraphIndex.build(rows[:first], queries=queries[:70], **options)
    twin.add(rows[first:], queries=queries[70:])
    for id in range(n):
        assert native.neighbours(id).tolist() == twin.neighbours(id).tolist()
    assert native.stats()["reachable"] == n


@given(
    seeds,
    st.integers(1, 200),
    dims,
    kinds,
    vector_metrics,
    vector_dtypes,
    st.booleans(),
)
def test_links_for_queries_lead_through_their_answers(
    seed, n, dim, kind, metric, dtype, one
):
    rows = make_rows(seed, n, dim, kind=kind, dtype=dtype)
    queries = make_rows(seed + 1, 1 if one else 20, dim, kind="norms", dtype=dtype)
    queries = queries_for(queries, dtype)
    # So many places that there is room for every link.
    options = {"metric": metric, "dtype": dtype, "degree": 256, "ef_construction": 10}
    plain = annx.GraphIndex.build(rows, **options)
    index = annx.GraphIndex.build(rows, queries=queries, threads=1, **options)
    again = annx.GraphIndex.build(rows, queries=queries, threads=2, **options)
    assert index.__reduce__() == again.__reduce__()
    links = [index.neighbours(id).tolist() for id in range(n)]
    for id, kept in enumerate(links):
        before = plain.neighbours(id).tolist()
        assert kept[: len(before)] == before
    near, _ = annx.exact_search(queries, stored_as(index), 20, metric=metric)
    for answers in near.tolist():
        order = [id for id in answers if id >= 0]
        for j in range(1, len(order)):
            assert any(id in order[:j] for id in links[order[j]])
            assert any(order[j] in links[id] for id in order[:j])


@given(
    seeds, st.integers(0, 70), dims, kinds, vector_metrics, vector_dtypes, ks, layouts
)
def test_widest_beam_is_exact(seed, n, dim, kind, metric, dtype, k, layout):
    rows = make_rows(seed, n, dim, kind=kind, dtype=dtype)
    index = annx.GraphIndex(dim, metric, dtype, degree=4, ef_construction=8)
    index.add(lay_out(rows, layout))
    questions = queries_for(make_rows(seed + 1, 3, dim, kind=kind, dtype=dtype), dtype)
    ids, distances = index.search(questions, k=k, ef=2 * n + k)
    truth = reference.exact_search(
        np.asarray(questions, np.float64), stored(index), k, metric=metric
    )
    scale = 1e-5 * (
        1 + np.abs(np.asarray(truth[1])[np.isfinite(truth[1])]).max(initial=0)
    )
    if metric in ("ip", "cosine"):  # sums cancel: an error is relative to the terms
        wide = np.asarray(questions, np.float64)
        norms = np.linalg.norm(wide, axis=1).max() if len(wide) else 0
        if metric == "ip" and n:
            scale += 1e-6 * norms * np.linalg.norm(stored(index), axis=1).max()
    np.testing.assert_array_equal(ids >= 0, np.asarray(truth[0]) >= 0)
    found = np.isfinite(distances)
    np.testing.assert_allclose(
        distances[found], np.asarray(truth[1])[found], rtol=1e-4, atol=scale
    )
    for row in ids:
        kept = row[row >= 0].tolist()
        assert len(set(kept)) == len(kept)


@given(seeds, st.integers(1, 900), small_dims, kinds, vector_metrics, vector_dtypes)
def test_every_vector_is_reachable(seed, n, dim, kind, metric, dtype):
    rows = make_rows(seed, n, dim, kind=kind, dtype=dtype)
    index = annx.GraphIndex.build(
        rows, metric=metric, dtype=dtype, degree=4, ef_construction=6, threads=1
    )
    facts = index.stats()
    assert facts["reachable"] == n
    assert facts["max_links"] <= 4


@given(seeds, st.integers(520, 700), kinds, vector_metrics)
def test_threads_do_not_change_the_graph(seed, n, kind, metric):
    rows = make_rows(seed, n, 8, kind=kind)
    one, two = (
        annx.GraphIndex.build(
            rows, metric=metric, degree=8, ef_construction=20, threads=threads
        )
        for threads in (1, 2)
    )
    assert one.__reduce__() == two.__reduce__()


@given(seeds, st.integers(1, 300), st.sampled_from((0.0, 0.01, 0.5, 1.0)))
def test_filter_is_kept(seed, n, share):
    rows = make_rows(seed, n, 5)
    index = annx.GraphIndex.build(rows, degree=8)
    chosen = np.flatnonzero(np.random.default_rng(seed).random(n) < share)
    ids, distances = index.search(rows[:5], k=4, ef=n, filter=chosen)
    twin = reference.GraphIndex.build(rows, degree=8)
    truth, _ = twin.search(rows[:5], k=4, filter=chosen)
    assert np.isin(ids[ids >= 0], chosen).all()
    assert np.isinf(distances[ids < 0]).all()
    np.testing.assert_array_equal(np.sort(ids), np.sort(truth))


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_recall_far_from_the_origin(offset, metric):
    rng = np.random.default_rng(3)
    direction = rng.standard_normal(24)
    rows = (rng.standard_normal((3000, 24)) + offset * direction).astype(np.float32)
    questions = (rng.standard_normal((50, 24)) + offset * direction).astype(np.float32)
    if metric == "ip":
        questions = rng.standard_normal((50, 24)).astype(np.float32)
    if metric == "cosine" and offset > 1e3:
        pytest.skip("all directions agree to the last bit of float32")
    index = annx.GraphIndex.build(rows, metric=metric)
    ids, _ = index.search(questions, k=10, ef=200)
    keys = reference.pairwise_distances(questions, rows, metric=metric)
    worst = np.sort(keys, axis=1)[:, 9:10]
    good = np.take_along_axis(keys, ids, 1) <= worst + 1e-6 * np.abs(worst)
    assert good.mean() > 0.97


def test_recall_of_inner_product_on_uneven_norms():
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((4000, 24)) * np.exp(rng.standard_normal((4000, 1)))
    questions = rng.standard_normal((50, 24)).astype(np.float32)
    index = annx.GraphIndex.build(rows, metric="ip")
    ids, _ = index.search(questions, k=10, ef=100)
    truth, _ = annx.exact_search(questions, rows.astype(np.float32), 10, metric="ip")
    hits = [
        len(set(a) & set(b)) for a, b in zip(ids.tolist(), truth.tolist(), strict=True)
    ]
    assert np.mean(hits) / 10 > 0.97


def test_recall_of_clusters_that_come_one_after_another():
    rng = np.random.default_rng(5)
    centres = 100 * rng.standard_normal((40, 16))
    rows = np.repeat(centres, 100, axis=0) + rng.standard_normal((4000, 16))
    index = annx.GraphIndex(16)
    for part in np.split(rows, 10):
        index.add(part)
    ids, _ = index.search(rows[::20], k=10, ef=100)
    truth, _ = annx.exact_search(rows[::20], rows, 10)
    hits = [
        len(set(a) & set(b)) for a, b in zip(ids.tolist(), truth.tolist(), strict=True)
    ]
    assert np.mean(hits) / 10 > 0.97


def test_tight_clusters_are_walked_in_full_precision():
    rng = np.random.default_rng(6)
    centres = rng.standard_normal((20, 16))
    rows = np.repeat(centres, 100, axis=0) + 1e-4 * rng.standard_normal((2000, 16))
    rows = rng.permutation(rows).astype(np.float32)
    index = annx.GraphIndex.build(rows)
    assert not index.stats()["split_rows"]
    np.testing.assert_array_equal(index.get(index.ids), rows)
    ids, _ = index.search(rows[::20], k=10, ef=150)
    truth, _ = annx.exact_search(
        rows[::20].astype(np.float32), rows.astype(np.float32), 10
    )
    hits = [
        len(set(a) & set(b)) for a, b in zip(ids.tolist(), truth.tolist(), strict=True)
    ]
    assert np.mean(hits) / 10 > 0.97


@given(seeds, st.integers(1, 60), dims, kinds)
def test_get_returns_float32_bit_for_bit(seed, n, dim, kind):
    rows = make_rows(seed, n, dim, kind=kind)
    index = annx.GraphIndex.build(rows)
    np.testing.assert_array_equal(index.get(index.ids), rows)
