# SPDX-License-Identifier: Apache-2.0
"""Bands of ranks, counts and groups under a radius, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
from annx import reference
from strategies import kinds, make_bits, make_rows, seeds, small_dims


@given(
    seed=seeds,
    n=st.integers(1, 40),
    start=st.integers(0, 12),
    width=st.integers(1, 9),
    most=st.integers(0, 9),
)
def test_band_equals_reference(seed, n, start, width, most):
    rng = np.random.default_rng(seed)
    rows = make_rows(seed, n, 5, kind="integer")
    queries = make_rows(seed + 1, 6, 5, kind="integer")
    exclude = [rng.integers(0, n + 3, rng.integers(0, most + 1)) for _ in range(6)]
    index, twin = annx.FlatIndex.build(rows), reference.FlatIndex.build(rows)
    band = start, start + width
    ids, distances = annx.search_band(index, queries, *band, exclude=exclude)
    expected, far = reference.search_band(twin, queries, *band, exclude=exclude)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(distances, far)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in exclude])])
    ragged = offsets, np.concatenate(exclude)
    again = annx.search_band(index, queries, *band, exclude=ragged)
    np.testing.assert_array_equal(again.ids, ids)


def test_band_takes_search_options_and_radius_results():
    rows = make_rows(1, 200, 6)
    index = annx.FlatIndex.build(rows)
    near = index.search_radius(rows[:9], 4.0)
    ids, _ = annx.search_band(
        index, rows[:9], 0, 5, exclude=near, filter=np.arange(100), threads=1
    )
    for i in range(9):
        assert not np.isin(ids[i], near[i][0]).any()
    assert (ids < 100).all()


def test_band_without_exclusions_is_a_part_of_a_search():
    rows = make_rows(2, 50, 4)
    index = annx.GraphIndex.build(rows)
    found = index.search(rows, 9)
    band = annx.search_band(index, rows, 3, 9)
    np.testing.assert_array_equal(band.ids, found.ids[:, 3:])
    np.testing.assert_array_equal(band.distances, found.distances[:, 3:])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"start": -1}, ValueError),
        ({"stop": 2}, ValueError),
        ({"exclude": [[0]]}, ValueError),
        ({"exclude": [[0.5]] * 4}, TypeError),
        ({"exclude": (np.array([0, 1]), np.array([3]))}, ValueError),
        ({"exclude": (np.array([0, 2, 1, 1, 1]), np.array([3]))}, ValueError),
        ({"exclude": (np.zeros(5), np.zeros(0))}, TypeError),
        ({"queries": np.zeros(3)}, ValueError),
    ],
)
def test_bad_bands_are_refused(change, error):
    index = annx.FlatIndex.build(make_rows(0, 10, 3))
    options = {"queries": np.zeros((4, 3)), "start": 2, "stop": 4, **change}
    with pytest.raises(error):
        annx.search_band(index, **options)


@given(
    seed=seeds,
    n=st.integers(0, 60),
    dim=small_dims,
    kind=kinds,
    metric=st.sampled_from(["l2", "cosine", "ip", "l1"]),
    threads=st.integers(1, 3),
)
def test_counts_are_those_of_the_radius_search(seed, n, dim, kind, metric, threads):
    rows = make_rows(seed, n, dim, kind=kind)
    index = annx.FlatIndex(dim, metric)
    index.add(rows)
    queries = make_rows(seed + 1, 7, dim, kind=kind)
    radius = 0.0
    if n:
        distances = annx.pairwise_distances(queries, rows, metric=metric)
        radius = float(np.median(distances))
        radius = radius if metric in ("ip", "cosine") else max(radius, 0.0)
    some = np.arange(0, n, 2)
    for filter in (None, some):
        counts = index.count_radius(queries, radius, filter=filter, threads=threads)
        found = index.search_radius(queries, radius, filter=filter, threads=threads)
        np.testing.assert_array_equal(counts, found.counts)


def test_counts_of_one_query_and_of_bits():
    index = annx.FlatIndex(70, "hamming", "bits")
    rows = make_bits(1, 90, 70)
    index.add(rows)
    found = index.search_radius(rows[:5], 33)
    np.testing.assert_array_equal(index.count_radius(rows[:5], 33), found.counts)
    assert index.count_radius(rows[0], 33).tolist() == [found.counts[0]]


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_graph_radius_finds_what_lies_within(metric):
    rows = make_rows(3, 900, 8)
    index = annx.GraphIndex.build(rows, metric=metric)
    exact = annx.FlatIndex.build(rows, metric)
    queries = make_rows(4, 20, 8)
    distances = annx.pairwise_distances(queries, rows, metric=metric)
    for share in (0.0, 0.01, 0.3):
        radius = float(np.quantile(distances, share))
        found = index.search_radius(queries, radius)
        truth = exact.search_radius(queries, radius)
        assert (found.distances <= np.float32(radius)).all()
        assert len(found.ids) >= 0.98 * len(truth.ids)
        for i in range(20):
            assert len(set(found[i][0])) == len(found[i][0])
            # At the very radius cosines may round otherwise.
            assert (~np.isin(found[i][0], truth[i][0])).sum() <= 1
            assert (np.diff(found[i][1]) >= 0).all()
    everything = index.search_radius(queries[0], 1e9)
    assert sorted(everything.ids.tolist()) == list(range(900))


def test_graph_radius_of_an_empty_index_is_empty():
    found = annx.GraphIndex(3).search_radius(np.zeros((2, 3)), 1.0)
    assert found.offsets.tolist() == [0, 0, 0]


@given(
    seed=seeds,
    n=st.integers(0, 80),
    dim=small_dims,
    kind=st.sampled_from(["integer", "ties", "duplicates", "zeros"]),
    metric=st.sampled_from(["l2", "ip", "l1"]),
    share=st.sampled_from([0.0, 0.01, 0.1]),
    threads=st.integers(1, 3),
)
def test_components_equal_reference(seed, n, dim, kind, metric, share, threads):
    rows = make_rows(seed, n, dim, kind=kind)
    rows = np.round(rows * 2)  # whole numbers, so that no distance is rounded
    radius = 0.0
    if n:
        far = reference.pairwise_distances(rows, rows, metric=metric)
        radius = float(np.quantile(far, share, method="lower"))
    labels = annx.connected_components(rows, radius, metric=metric, threads=threads)
    expected = reference.connected_components(rows, radius, metric=metric)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_components_of_other_types(dtype, metric):
    rows = make_rows(5, 300, 6, kind="integer", dtype=dtype)
    radius = 0.02 if metric == "cosine" else 3.0
    labels = annx.connected_components(rows, radius, metric=metric)
    expected = reference.connected_components(rows, radius, metric=metric)
    np.testing.assert_array_equal(labels, expected)


def test_components_of_bits():
    packed = make_bits(5, 120, 40)
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, :40].astype(bool)
    labels = annx.connected_components(packed, 10, metric="hamming")
    expected = reference.connected_components(bits, 10, metric="hamming")
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_components_of_planted_duplicates(threads):
    rng = np.random.default_rng(0)
    originals = rng.standard_normal((700, 24)).astype(np.float32)
    source = rng.integers(0, 700, 9000)
    rows = originals[source] + rng.standard_normal((9000, 24)).astype("f4") * 1e-3
    labels = annx.connected_components(rows, 0.01, threads=threads)
    _, first, inverse = np.unique(source, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    np.testing.assert_array_equal(labels, order[inverse])


def test_components_can_be_stopped_and_refuse_bad_radii():
    def stop(done, total):
        raise RuntimeError("enough")

    rows = make_rows(1, 50, 3)
    with pytest.raises(RuntimeError, match="enough"):
        annx.connected_components(rows, 1.0, progress=stop)
    for radius in (-1.0, np.nan):
        with pytest.raises(ValueError, match="radius"):
            annx.connected_components(rows, radius)
