# SPDX-License-Identifier: Apache-2.0
import copy
import pickle
import threading

import numpy as np
import pytest

import annx
from annx import _core
from annx.reference import flat as reference
from strategies import BYTE_DTYPES, VECTOR_DTYPES, VECTOR_METRICS, make_bits, make_rows

CASES = [(m, d) for m in VECTOR_METRICS for d in VECTOR_DTYPES]
CASES += [("hamming", "bits"), ("jaccard", "bits")]


def data(dtype, n, dim, seed=0, kind="normal"):
    if dtype == "bits":
        return make_bits(seed, n, dim)
    return make_rows(seed, n, dim, kind=kind, dtype=dtype)


def plain(rows, dtype, dim):
    if dtype == "bits":
        return np.unpackbits(rows, axis=1, count=dim, bitorder="little")
    return rows.astype(np.float64)


def make_queries(dtype, n, dim, seed=1, kind="normal"):
    rows = data(dtype, n, dim, seed, kind)
    return rows.astype(np.float32) if dtype in ("float16", "bfloat16") else rows


def scale_of(q, x, metric, distances):
    """What an error of 1e-5 is relative to: the distance, or |q| |x| for ip."""
    if metric != "ip":
        return np.abs(distances) + 1e-9
    norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1).max()
    return np.abs(distances) + norms + 1e-30


def assert_exact(found, q, x, metric, k, tolerance=1e-5):
    """Every rank's true distance is that rank's distance in the reference."""
    truth = reference.pairwise_distances(q, x, metric=metric)
    n = min(k, x.shape[0])
    ids, distances = found
    assert ids.shape == distances.shape == (q.shape[0], k)
    assert (ids[:, n:] == -1).all()
    assert np.isposinf(distances[:, n:]).all()
    expected = np.sort(truth, axis=1)[:, :n]
    chosen = np.take_along_axis(truth, ids[:, :n], axis=1)
    scale = scale_of(q, x, metric, expected)
    assert (np.abs(chosen - expected) <= tolerance * scale).all()
    assert (np.abs(distances[:, :n] - chosen) <= tolerance * scale).all()
    assert all(len(set(row)) == n for row in ids[:, :n].tolist())
    tied = distances[:, 1:n] == distances[:, : n - 1]
    assert (~tied | (ids[:, 1:n] > ids[:, : n - 1])).all()


@pytest.mark.parametrize(("metric", "dtype"), CASES)
@pytest.mark.parametrize("dim", [1, 13, 129])
def test_search_equals_float64_reference(metric, dtype, dim):
    x, q = data(dtype, 700, dim), make_queries(dtype, 23, dim)
    index = annx.FlatIndex(dim, metric, dtype)
    index.add(x)
    # Ties of 8-bit cosine are broken by the rounded distance.
    for threads in (1, 2, 3):
        found = index.search(q, 10, threads=threads)
        assert_exact(found, plain(q, dtype, dim), plain(x, dtype, dim), metric, 10)
    one = [index.search(row, 10) for row in q]
    np.testing.assert_array_equal([r.ids for r in one], found.ids)
    np.testing.assert_array_equal([r.distances for r in one], found.distances)


@pytest.mark.parametrize("metric", VECTOR_METRICS)
@pytest.mark.parametrize("kind", ["ties", "duplicates", "zeros", "offset", "norms"])
@pytest.mark.parametrize("dim", [3, 127])
def test_search_equals_reference_on_awkward_data(metric, kind, dim):
    x, q = (make_rows(s, n, dim, kind=kind) for s, n in ((0, 600), (1, 9)))
    found = annx.exact_search(q, x, 12, metric=metric, threads=2)
    assert_exact(found, q.astype(float), x.astype(float), metric, 12)
    streamed = [annx.exact_search(row, x, 12, metric=metric) for row in q]
    np.testing.assert_array_equal([r.ids for r in streamed], found.ids)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("mean", [1e2, 1e4])
@pytest.mark.parametrize("n_queries", [1, 40])
def test_search_keeps_its_digits_far_from_the_origin(metric, mean, n_queries):
    # |q|^2 + |x|^2 - 2 <q, x> in float32 has an error of about 1e4 here, against
    # distances of about 100: the naive formula finds almost none of these neighbours.
    rng = np.random.default_rng(0)
    x = (mean + rng.standard_normal((4000, 64))).astype(np.float32)
    q = (mean + rng.standard_normal((n_queries, 64))).astype(np.float32)
    found = annx.exact_search(q, x, 10, metric=metric)
    truth_ids, truth = reference.exact_search(q, x, 10, metric=metric)
    chosen = reference.pairwise_distances(q, x, metric=metric)
    chosen = np.take_along_axis(chosen, found.ids, axis=1)
    assert (np.abs(chosen - truth) <= 1e-5 * truth).all()
    assert (np.abs(found.distances - chosen) <= 1e-5 * chosen + 2.0**-45).all()
    assert (found.ids == truth_ids).mean() > 0.99
    if metric == "l2" and mean == 1e4:
        naive = (q**2).sum(1)[:, None] + (x**2).sum(1) - 2 * q @ x.T
        naive_ids = np.argsort(naive, axis=1)[:, :10]
        assert (np.sort(naive_ids) == np.sort(truth_ids)).mean() < 0.5


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_search_settles_clusters_that_no_centre_helps(metric):
    rng = np.random.default_rng(0)
    far = rng.choice([-1.0, 1.0], (900, 1)) * 3e4
    x = (far + rng.standard_normal((900, 24))).astype(np.float32)
    q = x[:30] + rng.standard_normal((30, 24)).astype(np.float32)
    found = annx.exact_search(q, x, 5, metric=metric)
    assert_exact(found, q.astype(float), x.astype(float), metric, 5)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6, 1.5e17, 1e18])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_search_is_exact_at_any_scale(scale, metric):
    x, q = (make_rows(s, n, 8) * np.float32(scale) for s, n in ((0, 400), (1, 9)))
    found = annx.exact_search(q, x, 5, metric=metric)
    truth, _ = reference.exact_search(q, x, 5, metric=metric)
    assert (found.ids == truth).mean() > 0.98


@pytest.mark.parametrize("dtype", BYTE_DTYPES)
@pytest.mark.parametrize("metric", ["l2", "ip", "l1"])
def test_integers_keep_their_order_beyond_float32(dtype, metric):
    # Distances near 2^25 differ by less than float32 can tell.
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, (500, 2048)).astype(dtype)
    x[1::2] = x[::2]
    x[1::2, 0] ^= 1
    q = rng.integers(info.min, info.max + 1, (11, 2048)).astype(dtype)
    found = annx.exact_search(q, x, 60, metric=metric)
    truth, _ = reference.exact_search(q, x, 60, metric=metric)
    np.testing.assert_array_equal(found.ids, truth)
    one = annx.exact_search(q[0], x, 60, metric=metric)
    np.testing.assert_array_equal(one.ids, truth[0])


@pytest.mark.parametrize(("metric", "dtype"), CASES)
def test_radius_equals_reference(metric, dtype):
    dim = 16
    x, q = data(dtype, 300, dim), make_queries(dtype, 9, dim)
    index = annx.FlatIndex(dim, metric, dtype)
    index.add(x, np.arange(300) * 7 + 3)
    truth = np.float32(
        reference.pairwise_distances(
            plain(q, dtype, dim), plain(x, dtype, dim), metric=metric
        )
    )
    radius = float(np.quantile(truth, 0.1)) * 1.0001 + 1e-4
    kept = index.ids[::2]
    for filter in (None, kept):
        found = index.search_radius(q, radius, filter=filter, threads=2)
        for i in range(9):
            ids, distances = found[i]
            inside = set((np.flatnonzero(truth[i] <= radius) * 7 + 3).tolist())
            if filter is not None:
                inside &= set(kept.tolist())
            assert set(ids.tolist()) == inside
            assert (np.diff(distances) >= 0).all()
        alone = index.search_radius(q[0], radius, filter=filter)
        np.testing.assert_array_equal(alone.ids, found[0][0])


@pytest.mark.parametrize(("metric", "dtype"), CASES)
def test_pairwise_distances_are_those_of_search(metric, dtype):
    dim = 17 if dtype != "bits" else 24
    x, q = data(dtype, 50, dim), make_queries(dtype, 20, dim)
    pairs = annx.pairwise_distances(q, x, metric=metric, dtype=dtype, threads=2)
    assert pairs.shape == (20, 50)
    found = annx.exact_search(q, x, 50, metric=metric, dtype=dtype)
    np.testing.assert_array_equal(
        np.take_along_axis(pairs, found.ids, axis=1), found.distances
    )


@pytest.mark.parametrize("isa", [n for n, ok in _core.isas().items() if ok])
def test_search_is_alike_on_every_instruction_set(isa, tmp_path):
    import os
    import subprocess
    import sys

    code = (
        "import numpy as np, annx\n"
        "rng = np.random.default_rng(0)\n"
        "x = rng.standard_normal((500, 33), np.float32)\n"
        "q = rng.standard_normal((20, 33), np.float32)\n"
        "for m in ('l2', 'ip', 'cosine', 'l1'):\n"
        "    r = annx.exact_search(q, x, 10, metric=m, threads=1)\n"
        "    print(r.ids.tolist(), r.distances.tobytes().hex())\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "ANNX_ISA": name},
            capture_output=True,
            check=True,
        ).stdout
        for name in ("scalar", isa)
    ]
    assert runs[0] == runs[1]


def test_k_beyond_the_count_pads():
    index = annx.FlatIndex(3)
    ids, distances = index.search(np.zeros((2, 3)), 4)
    assert (ids == -1).all()
    assert np.isposinf(distances).all()
    index.add(np.eye(3))
    ids, distances = index.search(np.zeros(3), 5)
    assert ids.tolist() == [0, 1, 2, -1, -1]
    assert distances.tolist() == [1, 1, 1, np.inf, np.inf]
    assert index.search(np.zeros((0, 3)), 2).ids.shape == (0, 2)
    assert len(annx.FlatIndex(3).search_radius(np.zeros((2, 3)), 1.0).ids) == 0


def test_cosine_to_zero_is_one():
    x = np.zeros((600, 4), np.float32)
    x[::3] = 1
    q = np.concatenate([np.zeros((1, 4)), np.ones((9, 4)), -np.ones((9, 4))])
    found = annx.exact_search(q, x, 300, metric="cosine", threads=2)
    found_small = annx.exact_search(q, x, 10, metric="cosine")
    assert (found.distances[0] == 1).all()
    assert found.ids[0].tolist() == list(range(300))
    assert (found.distances[1, :200] == 0).all()
    assert (found.distances[1, 200:] == 1).all()
    assert (found_small.distances[-1] == 1).all()
    assert found_small.ids[-1].tolist() == [1, 2, 4, 5, 7, 8, 10, 11, 13, 14]


def test_ids_are_given_kept_and_never_reused():
    index = annx.FlatIndex(2)
    assert index.add(np.zeros((2, 2))).tolist() == [0, 1]
    assert index.add(np.ones((1, 2)), [10]).tolist() == [10]
    assert index.add(np.ones((1, 2))).tolist() == [11]
    index.remove([11, 0])
    assert index.add(np.ones((1, 2))).tolist() == [12]
    assert sorted(index.ids.tolist()) == [1, 10, 12]
    assert 10 in index
    assert 0 not in index
    assert -1 not in index
    assert "x" not in index
    with pytest.raises(ValueError, match="10 which the index has already"):
        index.add(np.ones((2, 2)), [20, 10])
    with pytest.raises(ValueError, match="5 more than once"):
        index.add(np.ones((2, 2)), [5, 5])
    with pytest.raises(ValueError, match="holds -3"):
        index.add(np.ones((1, 2)), [-3])
    with pytest.raises(KeyError, match="id 99"):
        index.remove([1, 99])
    with pytest.raises(KeyError, match="id 99"):
        index.get(99)
    assert sorted(index.ids.tolist()) == [1, 10, 12]
    index.upsert([[5.0, 5.0], [6.0, 6.0]], [10, 40])
    assert index.get([10, 40]).tolist() == [[5, 5], [6, 6]]
    assert index.get(1).tolist() == [0, 0]
    assert len(index) == 4


@pytest.mark.parametrize("dtype", [*VECTOR_DTYPES, "bits"])
def test_get_returns_what_went_in(dtype):
    rows = data(dtype, 30, 24)
    index = annx.FlatIndex(24, "hamming" if dtype == "bits" else "cosine", dtype)
    ids = index.add(rows, np.arange(30)[::-1])
    got = index.get(ids)
    assert got.dtype == rows.dtype
    np.testing.assert_array_equal(got, rows)


def test_filters_restrict_the_search():
    x, q = make_rows(0, 800, 8), make_rows(1, 12, 8)
    index = annx.FlatIndex(8)
    index.add(x, np.arange(800) + 1000)
    twin = reference.FlatIndex(8)
    twin.add(x, np.arange(800) + 1000)
    mask = np.random.default_rng(2).random(800) < 0.3
    for chosen in (index.id_set(mask), index.id_set([1003, 1500, 7]), [1001], []):
        ids = chosen.ids if isinstance(chosen, annx.IdSet) else chosen
        expected, _ = twin.search(q, 10, filter=ids)
        np.testing.assert_array_equal(index.search(q, 10, filter=chosen).ids, expected)
        np.testing.assert_array_equal(
            index.search(q[0], 10, filter=chosen).ids, expected[0]
        )
    everything = index.id_set(np.ones(800, bool))
    np.testing.assert_array_equal(
        index.search(q, 10, filter=everything).ids, index.search(q, 10).ids
    )
    chosen = index.id_set(mask)
    first = index.search(q, 5, filter=chosen).ids
    index.remove(first[0])
    assert not set(index.search(q, 5, filter=chosen).ids.ravel()) & set(
        first[0].tolist()
    )
    with pytest.raises(TypeError, match="id_set"):
        index.search(q, 5, filter=mask)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        index.id_set(np.ones(3, bool))


def test_id_sets_behave_as_sets():
    a, b = annx.IdSet([5, 1, 5]), annx.IdSet([1, 2])
    assert a == annx.IdSet([1, 5])
    assert hash(a) == hash(annx.IdSet([1, 5]))
    assert list(a) == [1, 5]
    assert 5 in a
    assert 2 not in a
    assert pickle.loads(pickle.dumps(a)) == a
    assert (a & b, a | b, a - b) == (
        annx.IdSet([1]),
        annx.IdSet([1, 2, 5]),
        annx.IdSet([5]),
    )
    with pytest.raises(ValueError, match="holds -1"):
        annx.IdSet([-1])


@pytest.mark.parametrize(("metric", "dtype"), CASES)
def test_save_then_load_is_the_identity(metric, dtype, tmp_path):
    x, q = data(dtype, 200, 16), make_queries(dtype, 5, 16)
    for ids in (None, np.arange(200) * 3):
        index = annx.FlatIndex(16, metric, dtype)
        index.add(x, ids)
        if ids is not None:
            index.remove([3, 30])
        path = tmp_path / "a.annx"
        index.save(path)
        copies = [annx.load(path), annx.load(path, mmap=True), copy.deepcopy(index)]
        copies.append(pickle.loads(pickle.dumps(index)))
        for other in copies:
            assert isinstance(other, annx.FlatIndex)
            assert (other.dim, other.metric, other.dtype) == (16, metric, dtype)
            np.testing.assert_array_equal(other.ids, index.ids)
            for a, b in zip(other.search(q, 7), index.search(q, 7), strict=True):
                np.testing.assert_array_equal(a, b)
            assert other.add(x[:1]).tolist() == [200 if ids is None else 598]
            other.remove(other.ids[0])
            assert len(other) == len(index)


def test_changes_while_searching_are_safe():
    index = annx.FlatIndex(16)
    index.add(make_rows(0, 500, 16))
    q = make_rows(1, 8, 16)
    errors = []

    def work():
        try:
            for _ in range(30):
                found = index.search(q, 5, threads=2)
                assert (found.ids >= 0).all()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for i in range(60):
        ids = index.add(make_rows(i, 40, 16))
        index.remove(ids[::2])
    for t in threads:
        t.join()
    assert not errors
    assert len(index) == 500 + 60 * 20


def test_progress_is_reported_and_can_stop():
    x, q = make_rows(0, 60000, 64), make_rows(1, 3000, 64)
    seen = []
    annx.exact_search(q, x, 10, progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert all(0 <= done <= total == 3000 for done, total in seen)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annx.exact_search(q, x, 10, progress=stop)
    index = annx.FlatIndex.build(x[:5])
    with pytest.raises(KeyboardInterrupt):
        index.add(x[5:9], progress=stop)
    assert len(index) == 5
    seen.clear()
    index.add(x[5:9], progress=lambda *at: seen.append(at))
    assert seen == [(0, 4)]
    assert len(index) == 9


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda i: annx.FlatIndex(0), ValueError, "dim is 0"),
        (lambda i: annx.FlatIndex(2.5), TypeError, "dim"),
        (lambda i: annx.FlatIndex(2, "euclid"), ValueError, "metric is 'euclid'"),
        (lambda i: annx.FlatIndex(2, "l2", "bits"), ValueError, "metric is 'l2'"),
        (
            lambda i: annx.FlatIndex(2, "l2", "float64"),
            ValueError,
            "dtype is 'float64'",
        ),
        (lambda i: i.add([[1.0, np.nan]]), ValueError, "vectors row 0 holds NaN"),
        (lambda i: i.add([[1.0]]), ValueError, "vectors has 1 columns; it must have 2"),
        (lambda i: i.add([1.0, 2.0]), ValueError, "vectors has 1 dimensions"),
        (lambda i: i.add([["a", "b"]]), TypeError, "vectors"),
        (lambda i: i.add([[1, 2]], [1, 2]), ValueError, "ids has 2 entries"),
        (lambda i: i.add([[1, 2]], ["x"]), TypeError, "ids"),
        (lambda i: i.add([[1, 2]], progress=3), TypeError, "progress"),
        (lambda i: i.add([[1, 2]], threads=0), ValueError, "threads is 0"),
        (lambda i: i.upsert([[1, np.inf]], [0]), ValueError, "vectors row 0"),
        (lambda i: i.upsert([[1, 2]] * 2, [7, 7]), ValueError, "more than once"),
        (lambda i: i.remove([0, 0]), ValueError, "more than once"),
        (lambda i: i.remove([77]), KeyError, "id 77"),
        (lambda i: i.get([77]), KeyError, "id 77"),
        (lambda i: i.get("a"), TypeError, "ids"),
        (lambda i: i.search([[np.nan, 0]]), ValueError, "queries row 0 holds NaN"),
        (lambda i: i.search([[1e30, 0]]), ValueError, "squared norm"),
        (lambda i: i.search([[0, 0, 0]]), ValueError, "queries has 3 columns"),
        (lambda i: i.search([0, 0], 0), ValueError, "k is 0"),
        (lambda i: i.search([0, 0], 1.5), TypeError, "k is"),
        (lambda i: i.search([0, 0], threads=-1), ValueError, "threads"),
        (lambda i: i.search([0, 0], recall=1.5), ValueError, "recall is 1.5"),
        (lambda i: i.search([0, 0], filter=[-1]), ValueError, "filter holds -1"),
        (lambda i: i.search_radius([0, 0], -1), ValueError, "radius is -1"),
        (lambda i: i.search_radius([0, 0], np.nan), ValueError, "radius"),
        (lambda i: i.search_radius([0, 0], "a"), TypeError, "radius"),
        (lambda i: annx.exact_search([[1.0]], [[1.0, 2.0]]), ValueError, "queries"),
        (lambda i: annx.exact_search([1.0], [[np.inf]]), ValueError, "vectors row 0"),
        (lambda i: annx.exact_search([1.0], [[1.0]], 0), ValueError, "k is 0"),
        (lambda i: annx.exact_search([1.0], 3), ValueError, "vectors has 0 dimensions"),
        (lambda i: annx.pairwise_distances([[1.0]], [[1, 2]]), ValueError, "a has 1"),
        (
            lambda i: annx.pairwise_distances([[1]], [[1]], metric=3),
            TypeError,
            "metric",
        ),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(call, error, match):
    index = annx.FlatIndex(2)
    index.add([[0.0, 0.0], [1.0, 1.0]])
    with pytest.raises(error, match=match):
        call(index)
    assert index.ids.tolist() == [0, 1]
    assert index.get([0, 1]).tolist() == [[0, 0], [1, 1]]
    assert index.add([[2.0, 2.0]]).tolist() == [2]


def test_build_and_facts():
    x = make_rows(0, 20, 5, dtype="uint8")
    index = annx.FlatIndex.build(x)
    assert (index.dtype, index.dim, len(index)) == ("uint8", 5, 20)
    assert index.stats()["count"] == 20
    assert index.memory_usage()["rows"] >= 100
    assert "20 vectors" in repr(index)
    assert annx.FlatIndex.build(make_bits(0, 4, 16), "hamming", "bits").dim == 16
    found = index.search(x[:2], 1)
    assert found.scores.tolist() == (-found.distances).tolist()


def both_families(dtype="float32"):
    rows = data(dtype, 50, 12)
    flat = annx.FlatIndex(12, "l2", dtype)
    flat.add(rows)
    graph = annx.GraphIndex(12, "l2", dtype)
    graph.add(rows)
    return [flat, graph]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_search_by_the_short_way_equals_the_long_way(dtype):
    for index in both_families(dtype):
        for query in make_queries(dtype, 5, 12):
            for k in (1, 7, 60):
                ids, distances = index.search([query.tolist()], k)
                short = index._native.search_single(
                    query, k, None, None, annx.SearchResult
                )
                assert short is not None
                found = index.search(query, k)
                row = index.search(query[None], k)
                for one in (short, found):
                    assert type(one) is annx.SearchResult
                    assert one.metric == "l2"
                    assert one.ids.dtype == np.int64
                    assert one.distances.dtype == np.float32
                    np.testing.assert_array_equal(one.ids, ids[0], strict=True)
                    np.testing.assert_array_equal(
                        one.distances, distances[0], strict=True
                    )
                np.testing.assert_array_equal(row.ids, ids, strict=True)
                np.testing.assert_array_equal(row.distances, distances, strict=True)
                with pytest.raises(AttributeError):
                    short.ids = ids
                copied = pickle.loads(pickle.dumps(copy.deepcopy(short)))
                np.testing.assert_array_equal(copied.ids, ids[0])


def test_search_leaves_what_is_not_plain_to_the_long_way():
    query = np.ones(12, np.float32)
    with_nan = np.where(np.arange(12) == 3, np.float32("nan"), query)
    backwards = np.ones((24,), np.float32)[::-2]
    for index in both_families():
        single = index._native.search_single
        result = annx.SearchResult
        assert single(query, 3, None, 1, result, None, None) is not None
        assert single(query, 3, 70, None, result) is not None
        for bad in (
            query.astype(np.float64), query.astype(">f4"), query[:11], query.tolist(),
            backwards, with_nan, np.ones((2, 12), np.float32), query.view(np.int32),
            np.float32(1), None,
        ):  # fmt: skip
            assert single(bad, 3, None, None, result) is None
        for k in (0, -1, True, 2.0, 1 << 31, np.int64(3), None):
            assert single(query, k, None, None, result) is None
        for threads in (0, True, 2, 1.0):
            assert single(query, 3, None, threads, result) is None
        for ef in (0, -1, True, 2.0, 1 << 31):
            assert single(query, 3, ef, None, result) is None
        assert single(query, 3, None, None, result, 7) is None
        assert single(query, 3, None, None) is None
        assert single(query, 3, None, None, "result") is None
        with pytest.raises(ValueError, match="queries row 0 holds NaN"):
            index.search(with_nan, 3)
        with pytest.raises(ValueError, match="queries has 11 columns"):
            index.search(query[:11], 3)
        with pytest.raises(TypeError, match="k is True"):
            index.search(query, True)
        with pytest.raises(TypeError, match="threads is True"):
            index.search(query, 3, threads=True)
        np.testing.assert_array_equal(
            index.search(backwards, 3).ids, index.search(query, 3).ids
        )


def test_search_single_cannot_be_called_on_another_object():
    with pytest.raises(TypeError):
        _core.FlatIndex.search_single(object(), None, 1, None, None, annx.SearchResult)
    empty = _core.FlatIndex.__new__(_core.FlatIndex)
    query = np.ones(12, np.float32)
    assert empty.search_single(query, 1, None, None, annx.SearchResult) is None
