# SPDX-License-Identifier: Apache-2.0
"""GraphIndex with storage="small": when it codes, what it takes, what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import annx


def clustered(n, dim, seed=0):
    """Vectors of about ten dimensions within `dim`, no coordinate a whole number."""
    mix = np.random.default_rng(dim).standard_normal((10, dim))
    rng = np.random.default_rng(seed)
    rows = np.tanh(rng.standard_normal((n, 10)) @ mix / 3)
    return (rows + 0.1 * rng.standard_normal((n, dim))).astype(np.float32)


def recall(index, rows, questions, **options):
    ids, _ = index.search(questions, k=10, **options)
    truth, _ = annx.exact_search(questions, rows, 10, metric=index.metric)
    pairs = zip(ids, truth, strict=True)
    return np.mean([np.isin(a, b).mean() for a, b in pairs])


def test_storage_is_told_and_survives_saving():
    rows = clustered(400, 8)
    index = annx.GraphIndex.build(rows, storage="small")
    for twin in (index, pickle.loads(pickle.dumps(index))):
        assert twin.storage == "small"
        assert twin.degree == 24
        assert twin.stats()["byte_rows"]
    assert annx.GraphIndex(320, storage="small").degree == 32
    assert annx.GraphIndex(8).degree == 32


def test_few_vectors_are_kept_as_they_came():
    rows = clustered(300, 12)
    index = annx.GraphIndex(12, storage="small")
    index.add(rows[:127])
    assert not index.stats()["byte_rows"]
    np.testing.assert_array_equal(index.get(index.ids), rows[:127])
    index.add(rows[127:])
    assert index.stats()["byte_rows"]
    assert not (index.get(index.ids) == rows).any(axis=1).all()
    assert np.abs(index.get(index.ids) - rows).max() < 0.02


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_bytes_are_kept_as_they_are(dtype):
    rows = np.random.default_rng(0).integers(0, 100, (600, 20)).astype(dtype)
    index = annx.GraphIndex.build(rows, dtype=dtype, storage="small")
    assert index.storage == "small"
    assert not index.stats()["byte_rows"]
    np.testing.assert_array_equal(index.get(index.ids), rows)


def test_whole_numbers_within_255_are_kept_exactly():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (2000, 9)).astype(np.float32) / 4 - 7
    index = annx.GraphIndex.build(rows, storage="small")
    np.testing.assert_array_equal(index.get(index.ids), rows)
    rows[0, 0] += 65
    index = annx.GraphIndex.build(rows, storage="small")
    assert (index.get(index.ids) != rows).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 3, "metric": "poincare"}, "storage is 'small'"),
        ({"dim": 33026}, "dim is 33026"),
        ({"dim": 3, "storage": "tiny"}, "storage is 'tiny'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        annx.GraphIndex(**{"storage": "small", **options})


@pytest.mark.parametrize("dim", [50, 128, 256, 257, 320, 384, 784])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_memory_is_within_its_bounds(dim, metric):
    rows = clustered(1500, dim)
    rows[-1] *= 5
    ids = np.arange(len(rows)) * 2
    share = 0.9 if dim == 50 else 0.5 if dim == 128 else 0.4
    index = annx.GraphIndex(dim, metric, storage="small", ef_construction=4)
    index.add(rows)
    # What does not grow with the vectors: centre and rotation.
    fixed = 24 * dim + 1024
    assert index.memory_usage()["total"] <= share * rows.nbytes + fixed
    given = annx.GraphIndex(dim, metric, storage="small", ef_construction=4)
    given.add(rows, ids)
    more = given.memory_usage()["ids"]
    assert 0 < more < 20 * len(rows)


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip", "l1"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_recall_as_of_plain_vectors(metric, dtype):
    rows = clustered(3000, 40).astype(dtype)
    questions = clustered(200, 40, seed=1)
    index = annx.GraphIndex(40, metric, dtype, storage="small")
    index.add(rows[:1500])
    index.add(rows[1500:])
    assert recall(index, rows.astype(np.float32), questions, ef=150) > 0.97


@pytest.mark.parametrize("spread", [1.0, 1e3, 1e-3])
def test_dimensions_of_uneven_spread_are_rotated(spread):
    rows = clustered(3000, 40)
    rows[:, 0] *= 40
    rows *= np.float32(spread)
    rows += np.float32(1e3 * spread)
    questions, rows = rows[:100] + np.float32(0.01 * spread), rows[100:]
    index = annx.GraphIndex.build(rows, storage="small")
    assert recall(index, rows, questions, ef=150) > 0.9


def test_vectors_outside_the_grid_are_found():
    rows = clustered(3000, 24)
    index = annx.GraphIndex(24, storage="small")
    index.add(rows[:1000])
    step = index._native.grid()["step"]
    # Drifting away, by up to thirty times the spread of the first.
    drift = np.linspace(0, 30, 2000, dtype=np.float32)[:, None]
    far = rows[1000:] + drift * np.sign(rows[0])
    index.add(far)
    facts = index.stats()
    assert facts["wide_rows"] > 1500
    assert index._native.grid()["step"] == step
    every = np.concatenate([rows[:1000], far])
    error = np.abs(index.get(index.ids) - every).max(axis=1)
    # A 127th of the largest coordinate in the basis of the codes, at most the length.
    centre = index._native.grid()["centre"]
    assert (error <= np.linalg.norm(every - centre, axis=1) / 127 * 24**0.5).all()
    for part in (rows[:100], far[:100], far[-100:]):
        assert recall(index, every, part, ef=200) > 0.85
    # One vector far from all does not make the others coarser.
    more = annx.GraphIndex.build(
        np.concatenate([rows, 1e6 * rows[:1]]), storage="small"
    )
    assert more._native.grid()["step"] < 2 * step
    assert recall(more, rows, rows[:100], ef=100) > 0.95


def test_queries_far_from_all_vectors():
    rows = clustered(3000, 24)
    questions = 30 * clustered(100, 24, seed=2)
    index = annx.GraphIndex.build(rows, storage="small")
    assert recall(index, rows, questions, ef=300) > 0.9


def test_interrupted_first_add_leaves_no_grid_behind():
    rows = clustered(3000, 8)
    index = annx.GraphIndex(8, storage="small")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.add(1000 * rows, progress=stop)
    assert len(index) == 0
    index.add(rows)
    assert np.abs(index.get(index.ids) - rows).max() < 0.02


def test_known_neighbours_make_the_graph():
    rows = clustered(2000, 16)
    near, _ = annx.exact_search(rows, rows, 60)
    index = annx.GraphIndex.build(rows, storage="small", neighbours=near)
    assert index.stats()["reachable"] == len(rows)
    assert recall(index, rows, clustered(100, 16, seed=3), ef=100) > 0.97


def test_filter_and_mapped_file(tmp_path):
    rows = clustered(2000, 16)
    index = annx.GraphIndex.build(rows, storage="small")
    index.save(tmp_path / "a.annx")
    mapped = annx.load(tmp_path / "a.annx", mmap=True)
    for few in (np.arange(50), np.arange(0, 2000, 2)):
        ids, distances = mapped.search(rows[:20], k=5, ef=100, filter=few)
        assert np.isin(ids, few).all()
        assert (np.diff(distances, axis=1) >= 0).all()
    mapped.add(clustered(300, 16, seed=4))
    assert len(mapped) == 2300
    assert mapped.stats()["reachable"] == 2300


def test_zero_vectors_are_at_distance_one():
    rows = clustered(600, 16)
    rows[::2] = 0
    index = annx.GraphIndex.build(rows, metric="cosine", storage="small")
    np.testing.assert_array_equal(index.get(index.ids[::2]), rows[::2])
    ids, distances = index.search(clustered(20, 16, seed=5), k=290, ef=600)
    zero = ids % 2 == 0
    assert (distances[zero] == 1).all()
    # Those at less than a right angle come first.
    assert (zero.sum(axis=1) < 250).all()
    truth, _ = annx.exact_search(clustered(20, 16, seed=5), rows, 20, metric="cosine")
    assert np.mean(np.isin(truth[0], ids[0][:40])) > 0.9
