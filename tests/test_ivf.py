# SPDX-License-Identifier: Apache-2.0
"""Searching of IVFIndex, whatever its lists are made of."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import annx
import strategies as own
from annx import reference
from ivf_cases import ALL_CODECS, CODECS, LONGER, METRICS, built, data, recall

DTYPES = ("float32", "float16", "int8", "uint8")


@pytest.mark.parametrize("codec", ALL_CODECS)
@pytest.mark.parametrize("metric", METRICS)
def test_everything_probed_and_measured_is_exact(metric, codec):
    index, x = built(metric, codec=codec)
    q = data(20, seed=1)
    ids, distances = index.search(q, 10, n_probe=12, rerank=150, epsilon=99)
    exact = annx.exact_search(q, x, 10, metric=metric)
    assert np.array_equal(ids, exact.ids)
    assert np.array_equal(distances, exact.distances)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("metric", METRICS)
def test_recall_rises_with_effort(metric, codec):
    index, x = built(metric, codec=codec, n_lists=30)
    q = data(100, seed=1)
    truth = annx.exact_search(q, x, 10, metric=metric).ids
    by_probes = [
        recall(index.search(q, 10, n_probe=p, rerank=150, epsilon=99).ids, truth)
        for p in (1, 3, 9, 30)
    ]
    assert by_probes == sorted(by_probes)
    assert by_probes[-1] == 1
    by_rank = [
        recall(index.search(q, 10, n_probe=30, rerank=r).ids, truth)
        for r in (0, 1, 5, 25)
    ]
    assert by_rank == sorted(by_rank)
    assert by_rank[-1] > 0.9


@pytest.mark.parametrize("codec", ALL_CODECS)
@pytest.mark.parametrize("metric", METRICS)
def test_distances_found_are_canonical(metric, codec):
    index, x = built(metric, codec=codec)
    q = data(30, seed=1)
    ids, distances = index.search(q, 5, n_probe=3)
    exact = annx.pairwise_distances(q, x, metric=metric)
    assert np.array_equal(distances, np.take_along_axis(exact, ids, 1))


@given(
    own.seeds,
    st.integers(1, 40),
    st.sampled_from(METRICS),
    st.sampled_from((1, 4)),
    st.sampled_from(ALL_CODECS),
)
def test_all_candidates_equal_reference(seed, k, metric, n_probe, codec):
    x = own.make_rows(seed, 60, 6, kind="integer")
    options = {"n_lists": 4, "n_iterations": 0, "codec": codec, "seed": seed}
    native = annx.IVFIndex.build(x, metric, **options)
    twin = reference.IVFIndex.build(x, metric, **options)
    how = {"n_probe": n_probe, "rerank": 60, "epsilon": 99}
    queries = x[:5]
    if n_probe < 4:
        if metric == "cosine":
            return  # centroids of directions are no whole numbers
        # Which of two lists at the same distance is looked at is a matter of rounding.
        keys = np.sort(
            annx.pairwise_distances(queries, native.centroids, metric=metric)
        )
        queries = queries[keys[:, n_probe] - keys[:, n_probe - 1] > 1e-3]
        if len(queries) == 0:
            return
    ours = native.search(queries, k, **how)
    theirs = twin.search(queries, k, **how)
    assert np.array_equal(ours.ids >= 0, theirs[0] >= 0)
    assert np.allclose(ours.distances, theirs[1], atol=1e-6)
    if metric != "cosine":
        assert np.array_equal(ours.ids, theirs[0])
    chosen = np.random.default_rng(seed).choice(60, 30, replace=False)
    kept = native.search(queries, k, filter=chosen, **how)
    assert set(kept.ids.ravel()) <= {*chosen.tolist(), -1}


@given(
    own.seeds,
    st.sampled_from((1, 3, 7, 13, 127, 129)),
    st.sampled_from(METRICS),
    st.sampled_from(
        (
            {},
            {"codec": "pq4"},
            {"codec": "pq8"},
            {"storage": "codes"},
            {"storage": "sq8"},
            {"storage": "codes", "bits": 3},
            {"storage": "codes", "codec": "pq4", "residual": False},
            {"spill": 1.0},
        )
    ),
    st.sampled_from(("normal", "integer", "ties", "duplicates", "offset")),
    st.sampled_from((1, 6, 300)),
    st.integers(1, 9),
)
@settings(max_examples=40)
def test_a_batch_finds_what_single_queries_find(
    seed, dim, metric, options, kind, k, n_probe
):
    x = own.make_rows(seed, 280, dim, kind=kind)
    # Many of them, some held and some the same: more than are searched for together.
    q = np.concatenate([x[:100], own.make_rows(seed + 1, 110, dim, kind=kind)])
    index = annx.IVFIndex.build(x, metric, n_lists=8, n_iterations=2, **options)
    for how in ({"rerank": 0}, {"rerank": 2}, {}):
        found = index.search(q, k, n_probe=n_probe, threads=1, **how)
        for part in (1, 2, 7):
            rows = slice(95, 95 + part)
            some = index.search(q[rows], k, n_probe=n_probe, threads=1, **how)
            assert np.array_equal(some.ids, found.ids[rows])
            assert np.array_equal(some.distances, found.distances[rows])
        many = index.search(q, k, n_probe=n_probe, threads=3, **how)
        assert np.array_equal(many.ids, found.ids)
        assert np.array_equal(many.distances, found.distances)
        for i in range(0, 210, 9):
            one = index.search(q[i], k, n_probe=n_probe, **how)
            assert np.array_equal(one.ids, found.ids[i])
            assert np.array_equal(one.distances, found.distances[i])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_types_are_searched_as_they_are(metric, dtype):
    x = data(600, 12) * 8
    if dtype in ("int8", "uint8"):
        x = np.clip(np.round(x), 0, 100)
    x = x.astype(dtype)
    q = x[:10].astype(np.float32) if dtype == "float16" else x[:10]
    index = annx.IVFIndex.build(x, metric, dtype, n_lists=8)
    exact = annx.exact_search(q, x, 5, metric=metric, dtype=dtype)
    found = index.search(q, 5, n_probe=8, rerank=200, epsilon=99)
    assert np.array_equal(found.ids, exact.ids)
    assert np.array_equal(found.distances, exact.distances)
    assert np.array_equal(index.get([5, 3]), x[[5, 3]])


@pytest.mark.parametrize("codec", ["rabitq", "flat"])
@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_storage_ranks_rounded_vectors(metric, codec):
    index, x = built(metric, storage="float16", codec=codec)
    rounded = x.astype(np.float16).astype(np.float32)
    q = data(20, seed=1)
    found = index.search(q, 5, n_probe=12, rerank=300, epsilon=99)
    exact = annx.exact_search(q, x.astype(np.float16), 5, metric=metric)
    assert np.array_equal(found.ids, exact.ids)
    assert np.array_equal(found.distances, exact.distances)
    assert np.array_equal(index.get([7]), rounded[[7]])
    whole = built(metric, codec=codec)[0]
    assert index.memory_usage()["rows"] < 0.6 * whole.memory_usage()["rows"]
    with pytest.raises(ValueError, match="float16"):
        index.add(np.full((1, 20), 1e5))


@pytest.mark.parametrize("codec", ["rabitq", "flat"])
def test_results_do_not_depend_on_threads_or_batches(codec):
    index, x = built(codec=codec)
    q = data(50, seed=2)
    one, many = (index.search(q, 5, n_probe=4, threads=t) for t in (1, 3))
    single = [index.search(row, 5, n_probe=4) for row in q]
    assert np.array_equal(one.ids, many.ids)
    assert np.array_equal(one.distances, many.distances)
    assert np.array_equal(one.ids, [s.ids for s in single])
    assert np.array_equal(one.distances, [s.distances for s in single])
    again = annx.IVFIndex(20, codec=codec, n_lists=12, n_iterations=4)
    again.train(x, threads=3)
    again.add(x, threads=3)
    assert pickle.dumps(again) == pickle.dumps(index)


@pytest.mark.parametrize("options", [{}, {"codec": "flat"}, {"spill": 1.0}])
def test_a_filter_is_kept_to(options):
    index, x = built(n=4000, **options)
    q = data(20, seed=1)
    for chosen in (np.arange(0, 4000, 2), np.arange(3), np.arange(100, 1900)):
        found = index.search(q, 10, n_probe=2, rerank=5, filter=chosen)
        assert np.isin(found.ids, [*chosen.tolist(), -1]).all()
        assert (found.ids >= 0).sum() == 20 * min(10, len(chosen))
    flat = annx.FlatIndex.build(x)
    few = np.arange(0, 4000, 5)
    assert np.array_equal(
        index.search(q, 10, filter=few).ids, flat.search(q, 10, filter=few).ids
    )
    mask = np.zeros(4000, bool)
    assert (index.search(q, 3, filter=index.id_set(mask)).ids == -1).all()


def test_radius_search_is_exact():
    index, x = built()
    offsets, ids, _ = index.search_radius(x[:4], 20.0)
    squares = ((x[:4, None] - x[None]) ** 2).sum(-1)
    assert np.diff(offsets).tolist() == (squares <= 20).sum(1).tolist()
    assert ids[0] == 0


def test_awkward_data_are_searched():
    for x in (
        np.zeros((40, 3), np.float32),
        np.ones((40, 1), np.float32),
        np.repeat(data(2, 7), 20, axis=0),
        data(40, 9) * np.float32(1e-18),
        np.concatenate([data(39, 9), np.full((1, 9), 1e15, np.float32)]),
    ):
        for metric, codec in itertools.product(METRICS, ("rabitq", "flat")):
            index = annx.IVFIndex.build(x, metric, codec=codec, n_lists=2)
            found = index.search(x[:5], 3, n_probe=2, rerank=20, epsilon=99)
            exact = annx.exact_search(x[:5], x, 3, metric=metric)
            assert np.array_equal(found.distances, exact.distances)
        for metric, options in itertools.product(METRICS, (*LONGER, {"spill": 2})):
            options = {**options, "n_segments": 1} if "codec" in options else options
            index = annx.IVFIndex.build(x, metric, n_lists=2, **options)
            found = index.search(x[:5], 3, n_probe=2, rerank=20, epsilon=99)
            assert (found.ids >= 0).all()
            assert np.isfinite(found.distances).all()
            assert np.isfinite(index.get(index.ids)).all()


def test_fewer_than_k_is_padded():
    index = annx.IVFIndex(20, n_lists=2).train(data(40))
    assert index.search(data(2), 3).ids.tolist() == [[-1] * 3] * 2
    index.add(data(2))
    ids, distances = index.search(data(2)[0], 5)
    assert ids.tolist()[2:] == [-1] * 3
    assert np.isinf(distances[2:]).all()
    assert index.search(data(1), 5, filter=[1]).ids.tolist() == [[1, -1, -1, -1, -1]]


def test_bad_input_is_a_clear_error():
    index, x = built()
    for call, word in (
        (lambda: annx.IVFIndex(20, metric="l1"), "metric"),
        (lambda: annx.IVFIndex(20, dtype="bits"), "dtype"),
        (lambda: annx.IVFIndex(20, codec="lsq"), "'rabitq', 'pq4'"),
        (lambda: annx.IVFIndex(20, "hamming", codec="flat"), "metric"),
        (lambda: annx.IVFIndex(20, "l2", "bits", codec="flat"), "metric"),
        (lambda: annx.IVFIndex(20, codec="flat", storage="codes"), "storage"),
        (lambda: annx.IVFIndex(20, codec="flat", n_segments=4), "n_segments"),
        (lambda: annx.IVFIndex(20, codec="flat", storage="sq8"), "storage"),
        (lambda: annx.IVFIndex(20, bits=4), "bits"),
        (lambda: annx.IVFIndex(20, rotation="random"), "rotation"),
        (lambda: annx.IVFIndex(20, codec="pq4", rotation="lsq"), "rotation"),
        (lambda: annx.IVFIndex(5000, codec="pq8", rotation="opq"), "rotation"),
        (lambda: annx.IVFIndex(20, rotation="opq"), "rotation"),
        (lambda: annx.IVFIndex(20, codec="flat", residual=False), "residual"),
        (lambda: annx.IVFIndex(20, codec="pq8", n_lists=2).train(x[:255]), "256"),
        (lambda: annx.IVFIndex(20, spill=-1), "spill"),
        (lambda: annx.IVFIndex(20, spill=np.inf), "spill"),
        (lambda: annx.IVFIndex(20, codec="flat", spill=1), "spill"),
        (lambda: annx.IVFIndex(20, "poincare", codec="flat"), "metric"),
        (lambda: annx.IVFIndex(20, bits=0, storage="codes"), "bits"),
        (lambda: annx.IVFIndex(20, bits=9, storage="codes"), "bits"),
        (lambda: annx.IVFIndex(20, codec="pq4", bits=4, storage="codes"), "bits"),
        (lambda: annx.IVFIndex(20, storage="int8"), "storage"),
        (lambda: annx.IVFIndex(20, dtype="int8", storage="float16"), "storage"),
        (lambda: annx.IVFIndex(20, n_segments=4), "n_segments"),
        (lambda: annx.IVFIndex(20, codec="pq4", n_segments=21), "n_segments"),
        (lambda: annx.IVFIndex(20, n_lists=0), "n_lists"),
        (lambda: annx.IVFIndex(20, n_probe=0), "n_probe"),
        (lambda: index.search(x[:2], 0), "k"),
        (lambda: index.search(x[:2], n_probe=0), "n_probe"),
        (lambda: index.search(x[:2], 2, rerank=-1), "rerank"),
        (lambda: index.search(x[:2], 2, epsilon=-1), "epsilon"),
        (lambda: index.search(x[:2] * np.nan), "queries"),
        (lambda: index.search(x[:2, :3]), "queries"),
        (lambda: index.add(x[:2, :3]), "vectors"),
        (lambda: index.train(x[:3]), "vectors"),
    ):
        with pytest.raises(ValueError, match=word):
            call()
    assert len(index) == 1500
    with pytest.raises(TypeError, match="residual"):
        annx.IVFIndex(20, residual=1)
    with pytest.raises(annx.NotTrainedError):
        annx.IVFIndex(20).add(x)
    with pytest.raises(annx.NotTrainedError):
        annx.IVFIndex(20).search(x)
