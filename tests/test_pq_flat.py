# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from annx import reference

METRICS = ("l2", "ip", "cosine")


def data(n=1500, dim=20, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def built(metric="l2", **options):
    x = data()
    options = {"n_segments": 5, "n_bits": 4, "n_iterations": 4, **options}
    return annx.PQFlatIndex.build(x, metric, **options), x


@pytest.mark.parametrize("metric", METRICS)
def test_reranking_everything_is_exact(metric):
    index, x = built(metric)
    q = data(20, seed=1)
    ids, distances = index.search(q, 10, rerank=150)
    exact = annx.exact_search(q, x, 10, metric=metric)
    assert np.array_equal(ids, exact.ids)
    assert np.array_equal(distances, exact.distances)


@pytest.mark.parametrize("metric", METRICS)
def test_recall_rises_with_reranking(metric):
    index, x = built(metric)
    q = data(100, seed=1)
    truth = annx.exact_search(q, x, 10, metric=metric).ids
    recalls = []
    for rerank in (0, 1, 5, 25):
        ids = index.search(q, 10, rerank=rerank).ids
        hits = [len(set(a) & set(b)) for a, b in zip(ids, truth, strict=True)]
        recalls.append(np.mean(hits) / 10)
    assert recalls == sorted(recalls)
    assert recalls[-1] > 0.9


def test_without_reranking_distances_are_those_of_decoded_vectors():
    index, x = built()
    pq = annx.ProductQuantizer(20, 5, n_bits=4, n_iterations=4).train(x)
    q = data(9, seed=1)
    estimates = pq.asymmetric_distances(q, pq.encode(x))
    ids, distances = index.search(q, 7, rerank=0)
    order = np.argsort(estimates, axis=1, kind="stable")[:, :7]
    assert np.array_equal(ids, order)
    assert np.array_equal(distances, np.take_along_axis(estimates, order, 1))


@given(own.seeds, st.integers(1, 40), st.sampled_from(METRICS), st.integers(0, 5))
def test_search_equals_reference_on_whole_numbers(seed, k, metric, rerank):
    x = own.make_rows(seed, 60, 6, kind="integer")
    options = {"n_segments": 3, "n_bits": 4, "n_iterations": 0, "seed": seed}
    native = annx.PQFlatIndex.build(x, metric, **options)
    twin = reference.PQFlatIndex.build(x, metric, **options)
    chosen = np.random.default_rng(seed).choice(60, 30, replace=False)
    for filter in (None, chosen):
        ours = native.search(x[:5], k, rerank=rerank, filter=filter)
        theirs = twin.search(x[:5], k, rerank=rerank, filter=filter)
        if metric == "cosine":
            continue  # codebooks of directions are no whole numbers
        assert np.array_equal(ours.ids, theirs[0])
        assert np.array_equal(ours.distances, theirs[1])


def test_results_do_not_depend_on_threads():
    index, _ = built()
    q = data(50, seed=2)
    one, many = (index.search(q, 5, threads=t) for t in (1, 3))
    assert np.array_equal(one.ids, many.ids)
    assert np.array_equal(one.distances, many.distances)


def test_changes_and_reads_agree():
    index, x = built()
    index.remove(np.arange(0, 1500, 2))
    assert len(index) == 750
    assert 2 not in index
    assert 3 in index
    assert np.array_equal(index.get([3, 7]), x[[3, 7]])
    found = index.search(x[:50], 5, rerank=20).ids
    assert (found % 2 == 1).all()
    index.upsert(x[[0, 1]] + 9, [3, 5000])
    assert np.array_equal(index.get(5000), x[1] + 9)
    assert index.search(x[0] + 9, 1).ids.tolist() == [3]
    assert index.add(x[:1]).tolist() == [5001]
    with pytest.raises(KeyError):
        index.remove([1, 2])
    assert 1 in index
    with pytest.raises(ValueError, match="ids"):
        index.add(x[:2], [9001, 1])
    assert 9001 not in index


def test_training_again_codes_anew():
    index, x = built()
    before = index.search(x[:20], 3, rerank=0).distances
    index.train(x[:600])
    after = index.search(x[:20], 3, rerank=0).distances
    assert not np.array_equal(before, after)
    assert np.array_equal(index.get(np.arange(1500)), x)


def test_radius_search_is_exact():
    index, x = built()
    offsets, ids, _ = index.search_radius(x[:4], 20.0)
    squares = ((x[:4, None] - x[None]) ** 2).sum(-1)
    assert np.diff(offsets).tolist() == (squares <= 20).sum(1).tolist()
    assert ids[0] == 0


def test_fewer_than_k_is_padded():
    index = annx.PQFlatIndex(20, n_bits=4).train(data(40))
    assert index.search(data(2), 3).ids.tolist() == [[-1] * 3] * 2
    index.add(data(2))
    ids, distances = index.search(data(2)[0], 5)
    assert ids.tolist()[2:] == [-1] * 3
    assert np.isinf(distances[2:]).all()
    assert index.search(data(1), 5, filter=[1]).ids.tolist() == [[1, -1, -1, -1, -1]]


def test_bad_input_is_a_clear_error():
    index, x = built()
    for call, word in (
        (lambda: annx.PQFlatIndex(20, metric="l1"), "metric"),
        (lambda: annx.PQFlatIndex(20, dtype="int8"), "dtype"),
        (lambda: annx.PQFlatIndex(20, n_bits=5), "n_bits"),
        (lambda: annx.PQFlatIndex(20, n_segments=21), "n_segments"),
        (lambda: index.search(x[:2], 0), "k"),
        (lambda: index.search(x[:2], 2, rerank=-1), "rerank"),
        (lambda: index.search(x[:2] * np.nan), "queries"),
        (lambda: index.search(x[:2, :3]), "queries"),
        (lambda: index.add(x[:2, :3]), "vectors"),
        (lambda: index.train(x[:3]), "vectors"),
    ):
        with pytest.raises(ValueError, match=word):
            call()
    assert len(index) == 1500
    with pytest.raises(annx.NotTrainedError):
        annx.PQFlatIndex(20).add(x)
    with pytest.raises(annx.NotTrainedError):
        annx.PQFlatIndex(20).search(x)


@pytest.mark.parametrize("metric", METRICS)
def test_save_and_pickle_are_the_identity(tmp_path, metric):
    index, x = built(metric)
    index.remove([4, 900])
    index.save(tmp_path / "i.annx")
    others = [annx.load(tmp_path / "i.annx", mmap=m) for m in (False, True)]
    others.append(pickle.loads(pickle.dumps(index)))
    for other in others:
        assert type(other) is annx.PQFlatIndex
        found, known = other.search(x[:30], 6), index.search(x[:30], 6)
        assert np.array_equal(found.ids, known.ids)
        assert np.array_equal(found.distances, known.distances)
        assert other.add(x[:1]).tolist() == [1500]
    assert index.memory_usage()["codes"] > 0
    assert len(pickle.loads(pickle.dumps(annx.PQFlatIndex(9)))) == 0
