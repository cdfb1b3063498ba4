# SPDX-License-Identifier: Apache-2.0
"""All-pairs search against plain NumPy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
from annx import reference
from isas import outputs_by_isa
from strategies import make_bits, make_rows, seeds


def clusters(seed, n, dim, *, spread=0.2, centres=40):
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, dim))
    rows = middle[rng.integers(0, centres, n)] + spread * rng.standard_normal((n, dim))
    return rows.astype(np.float32)


def low_rank(seed, n, dim, rank):
    """Rows that a sketch can hold: most of the variance in few directions."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, dim))
    return (rows + 0.1 * rng.standard_normal((n, dim))).astype(np.float32)


def truth(rows, k, metric):
    found = annx.exact_search(rows, rows, k + 1, metric=metric, threads=1)
    ids = np.empty((len(rows), k), np.int64)
    distances = np.empty((len(rows), k), np.float32)
    for i in range(len(rows)):
        keep = np.flatnonzero(found.ids[i] != i)[:k]
        ids[i], distances[i] = found.ids[i, keep], found.distances[i, keep]
    return ids, distances


def edge_recall(ids, expected):
    return np.mean([np.isin(b, a).mean() for a, b in zip(ids, expected, strict=True)])


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip", "l1"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_small_graph_equals_reference(metric, dtype):
    rows = make_rows(3, 60, 9, kind="integer", dtype=dtype)
    ids, distances = annx.knn_graph(rows, 7, metric=metric)
    expected, far = reference.knn_graph(rows, 7, metric=metric)
    np.testing.assert_allclose(distances, far, rtol=1e-5, atol=1e-6)
    if metric != "cosine":  # whose ties are apart by rounding
        np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("metric", ["hamming", "jaccard"])
def test_bits_equal_reference(metric):
    packed = make_bits(5, 80, 70)
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, :70].astype(bool)
    ids, distances = annx.knn_graph(packed, 5, metric=metric)
    expected, far = reference.knn_graph(bits, 5, metric=metric)
    np.testing.assert_allclose(distances, far, rtol=1e-6)
    np.testing.assert_array_equal(ids, expected)


CASES = {
    "normal": lambda: make_rows(1, 1500, 20),
    "clusters": lambda: clusters(2, 3000, 24),
    "offset": lambda: clusters(3, 2000, 12) + np.float32(500),
    "tight": lambda: clusters(4, 2000, 12, spread=1e-4),
    "ties": lambda: make_rows(5, 2000, 6, kind="ties"),
    "duplicates": lambda: make_rows(6, 1300, 6, kind="duplicates"),
    "zeros": lambda: make_rows(7, 1400, 8, kind="zeros"),
    "norms": lambda: make_rows(8, 1500, 16, kind="norms"),
    "sketched": lambda: low_rank(9, 2500, 200, 12),
    "long": lambda: make_rows(10, 1100, 130),
    "float16": lambda: clusters(11, 1500, 20).astype(np.float16),
    "int8": lambda: np.clip(clusters(12, 1500, 20) * 40, -127, 127).astype(np.int8),
    "huge": lambda: make_rows(13, 1200, 5) * np.float32(1e17),
}


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("case", CASES)
def test_exact_graph_is_that_of_exact_search(case, metric):
    rows = CASES[case]()
    expected, far = truth(rows, 6, metric)
    graph = annx.knn_graph(rows, 6, metric=metric, exact=True)
    np.testing.assert_array_equal(graph.distances, far)
    np.testing.assert_array_equal(graph.ids, expected)
    assert graph.recall == 1


@pytest.mark.parametrize("case", CASES)
def test_recall_is_reached_with_true_distances(case):
    rows = CASES[case]()
    _, far = truth(rows, 6, "l2")
    graph = annx.knn_graph(rows, 6, recall=0.9)
    assert (graph.ids != np.arange(len(rows))[:, None]).all()
    assert all(len(set(ids)) == 6 for ids in graph.ids.tolist())
    # By distance, because duplicates stand for one another.
    assert (graph.distances <= far[:, -1:] * (1 + 1e-6)).mean() >= 0.87
    x = rows.astype(np.float64)
    square = np.square(x[:, None] - x[graph.ids]).sum(axis=2)
    np.testing.assert_allclose(graph.distances, square, rtol=1e-5, atol=1e-30)
    assert (np.diff(graph.distances, axis=1) >= 0).all()


@pytest.mark.parametrize("recall", [0.6, 0.8, 0.95, 0.99])
def test_estimate_of_recall_is_near_the_truth(recall):
    rows = clusters(20, 6000, 40, spread=0.7)
    expected, _ = truth(rows, 10, "l2")
    graph = annx.knn_graph(rows, 10, recall=recall)
    assert graph.recall >= recall
    assert abs(edge_recall(graph.ids, expected) - graph.recall) < 0.03


def test_reference_reaches_the_recall_too():
    rows = clusters(21, 1500, 10, spread=0.5)
    expected, _ = reference.knn_graph(rows, 5, exact=True)
    ids, _ = reference.knn_graph(rows, 5, recall=0.8)
    assert 0.77 < edge_recall(ids, expected) <= 1


@given(seed=seeds, recall=st.sampled_from([0.5, 0.9, 1.0]), sketched=st.booleans())
def test_result_does_not_depend_on_threads(seed, recall, sketched):
    rows = low_rank(seed, 1100, 120, 6) if sketched else clusters(seed, 1100, 7)
    one = annx.knn_graph(rows, 5, recall=recall, threads=1)
    four = annx.knn_graph(rows, 5, recall=recall, threads=4)
    np.testing.assert_array_equal(one.ids, four.ids)
    np.testing.assert_array_equal(one.distances, four.distances)
    assert one.recall == four.recall


@given(seed=seeds, n=st.integers(0, 12), k=st.integers(1, 14))
def test_more_than_there_are_is_padded(seed, n, k):
    ids, distances = annx.knn_graph(make_rows(seed, n, 3), k)
    there = min(k, max(n - 1, 0))
    assert ids.shape == (n, k)
    assert (ids[:, :there] >= 0).all()
    assert (ids[:, there:] == -1).all()
    assert np.isinf(distances[:, there:]).all()


def test_csr_holds_the_same_edges():
    graph = annx.knn_graph(make_rows(1, 50, 4, kind="ties"), 6)
    matrix = graph.to_csr()
    assert matrix.shape == (50, 50)
    assert matrix.nnz == 300
    np.testing.assert_array_equal(matrix.indices.reshape(50, 6), graph.ids)
    np.testing.assert_array_equal(matrix.data.reshape(50, 6), graph.distances)


def test_csr_leaves_padding_out():
    matrix = annx.knn_graph(make_rows(1, 4, 4), 6).to_csr()
    assert matrix.nnz == 12


def test_csr_without_scipy_names_the_extra(monkeypatch):
    graph = annx.knn_graph(make_rows(1, 4, 4), 2)
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match=r"annx\[scipy\]"):
        graph.to_csr()


def test_progress_can_stop_it():
    def stop(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        annx.knn_graph(clusters(1, 60000, 32), 10, threads=1, progress=stop)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"k": 0}, ValueError),
        ({"recall": 0.0}, ValueError),
        ({"recall": 1.5}, ValueError),
        ({"metric": "hamming"}, TypeError),
        ({"metric": "l3"}, ValueError),
        ({"seed": -1}, ValueError),
        ({"threads": 0}, ValueError),
    ],
)
def test_bad_options_are_refused(options, error):
    with pytest.raises(error):
        annx.knn_graph(make_rows(0, 10, 3), **{"k": 2, **options})


def test_nan_is_refused():
    rows = make_rows(0, 10, 3)
    rows[4, 1] = np.nan
    with pytest.raises(ValueError, match="vectors"):
        annx.knn_graph(rows, 2)


def test_exact_graph_is_the_same_on_every_instruction_set():
    script = """
import numpy as np
import annx
rng = np.random.default_rng(0)
short = rng.standard_normal((1100, 11)).astype(np.float32)
long = (rng.standard_normal((1100, 5)) @ rng.standard_normal((5, 140))).astype("f4")
for rows in short, long:
    graph = annx.knn_graph(rows, 4, exact=True, threads=1)
    print(graph.ids.tolist(), graph.distances.tolist())
"""
    assert len(outputs_by_isa(script)) == 1
