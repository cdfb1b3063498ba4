# SPDX-License-Identifier: Apache-2.0
"""Changes of IVFIndex, and what is saved of it."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from ivf_cases import METRICS, ROTATED, built, data


@pytest.mark.parametrize(
    "options",
    [
        {"storage": None},
        {"storage": "codes"},
        {"storage": None, "codec": "flat"},
        {"storage": None, "codec": "pq8"},
        {"storage": "sq8"},
        {"storage": "codes", "bits": 7},
        {"storage": None, "spill": 1.0},
        {"storage": "sq8", "spill": 1.0},
    ],
)
def test_changes_and_reads_agree(options):
    storage = options["storage"]
    codes = 2 if "spill" in options else 1
    index, x = built(**options)
    decoded = index.get(np.arange(1500))
    index.remove(np.arange(0, 1500, 2))
    assert len(index) == 750
    assert index.list_sizes.sum() == 750 * codes
    assert 2 not in index
    assert 3 in index
    found = index.search(x[:50], 5, n_probe=12, rerank=20).ids
    assert (found % 2 == 1).all()
    index.upsert(x[[0, 1]] + 9, [3, 5000])
    assert len(index) == 751
    assert index.list_sizes.sum() == 751 * codes
    assert index.search(x[0] + 9, 1, n_probe=12).ids.tolist() == [3]
    assert index.search(x[1] + 9, 1, n_probe=12).ids.tolist() == [5000]
    assert np.array_equal(index.get([7, 1499]), decoded[[7, 1499]])
    if storage == "sq8" or "bits" in options:
        # Far from what the codes were made for, but coded.
        assert np.abs(index.get([3]) - x[0]).max() > 4
    if storage is None:
        assert np.array_equal(index.get([3, 7]), [x[0] + 9, x[7]])
    assert index.add(x[:1]).tolist() == [5001]
    with pytest.raises(KeyError):
        index.remove([1, 2])
    assert 1 in index
    with pytest.raises(ValueError, match="ids"):
        index.add(x[:2], [9001, 1])
    assert 9001 not in index
    index.remove(index.ids)
    assert len(index) == 0
    assert index.search(x[:2], 2).ids.tolist() == [[-1, -1]] * 2
    assert index.add(x[:3]).tolist() == [5002, 5003, 5004]


@given(
    own.seeds,
    st.sampled_from(
        (
            {"codec": "rabitq"},
            {"codec": "flat"},
            {"storage": "sq8"},
            {"storage": "codes", "bits": 5},
            {"spill": 0.5},
            {"storage": "sq4", "spill": 1},
        )
    ),
    st.sampled_from(METRICS),
)
def test_any_changes_leave_what_a_dictionary_has(seed, options, metric):
    rng = np.random.default_rng(seed)
    index = annx.IVFIndex(5, metric, n_lists=3, **options).train(data(60, 5))
    whole = "storage" not in options
    known = {}
    for _ in range(12):
        rows = data(int(rng.integers(1, 40)), 5, seed=int(rng.integers(1 << 30)))
        kind = rng.integers(3)
        if kind == 0:
            known.update(zip(index.add(rows).tolist(), rows, strict=True))
        elif kind == 1:
            ids = rng.choice(300, len(rows), replace=False)
            index.upsert(rows, ids)
            known.update(zip(ids.tolist(), rows, strict=True))
        elif known:
            ids = rng.choice(list(known), int(rng.integers(1, len(known) + 1)), False)
            index.remove(ids)
            for id in ids.tolist():
                del known[id]
    assert sorted(index.ids.tolist()) == sorted(known)
    assert index.list_sizes.sum() == len(known) * (2 if "spill" in options else 1)
    if known:
        ids = np.array(list(known))
        rows = np.array(list(known.values()))
        if whole:
            assert np.array_equal(index.get(ids), rows)
        else:
            # The same code wherever, and in whatever order, it came.
            again = annx.IVFIndex(5, metric, n_lists=3, **options).train(data(60, 5))
            again.add(rows, ids)
            assert np.array_equal(index.get(ids), again.get(ids))
        found = index.search(data(4, 5), 400, n_probe=3, rerank=300, epsilon=99)
        assert (np.sort(found.ids, axis=1)[:, -len(known) :] == np.sort(ids)).all()
        again = pickle.loads(pickle.dumps(index)).search(
            data(4, 5), 400, n_probe=3, rerank=300, epsilon=99
        )
        assert np.array_equal(found.ids, again.ids)


def test_adding_in_parts_finds_the_same():
    whole, x = built()
    parts = annx.IVFIndex(20, n_lists=12, n_iterations=4).train(x)
    for at in range(0, 1500, 70):
        parts.add(x[at : at + 70])
    q = data(30, seed=1)
    a, b = (
        index.search(q, 10, n_probe=5, rerank=80, epsilon=99)
        for index in (whole, parts)
    )
    assert np.array_equal(a.ids, b.ids)
    assert np.array_equal(a.distances, b.distances)
    assert np.array_equal(whole.list_sizes, parts.list_sizes)


@pytest.mark.parametrize("codec", ["rabitq", "flat"])
def test_stopping_leaves_the_index_as_it_was(codec):
    index, x = built(codec=codec)
    before = pickle.dumps(index)

    class StopError(Exception):
        pass

    def stop(done, total):
        raise StopError

    many = np.tile(x, (40, 1))
    for call in (index.train, index.add):
        with pytest.raises(StopError):
            call(many, threads=1, progress=stop)
        assert len(index) == 1500
        assert index.list_sizes.sum() == 1500
    assert np.array_equal(
        pickle.loads(before).search(x[:9], 5).ids, index.search(x[:9], 5).ids
    )


def test_training_again_codes_anew():
    index, x = built()
    before = index.search(x[:20], 3, rerank=0).distances
    index.train(x[:600])
    after = index.search(x[:20], 3, rerank=0).distances
    assert not np.array_equal(before, after)
    assert np.array_equal(index.get(np.arange(1500)), x)
    assert index.list_sizes.sum() == 1500
    index.remove([3])
    assert len(index) == 1499


@pytest.mark.parametrize("storage", [None, "float16", "codes"])
@pytest.mark.parametrize("metric", METRICS)
def test_save_and_pickle_are_the_identity(tmp_path, metric, storage):
    index, x = built(metric, storage=storage, codec="pq4", n_segments=7, n_probe=5)
    index.remove([4, 900])
    index.save(tmp_path / "i.annx")
    others = [annx.load(tmp_path / "i.annx", mmap=m) for m in (False, True)]
    others.append(annx.load(tmp_path / "i.annx", mmap=True, verify="structure"))
    others.append(pickle.loads(pickle.dumps(index)))
    for other in others:
        assert type(other) is annx.IVFIndex
        assert (other.storage, other.codec, other.n_probe) == (
            storage or "float32",
            "pq4",
            5,
        )
        found, known = other.search(x[:30], 6), index.search(x[:30], 6)
        assert np.array_equal(found.ids, known.ids)
        assert np.array_equal(found.distances, known.distances)
        assert np.array_equal(other.get([3, 901]), index.get([3, 901]))
        assert other.add(x[:1]).tolist() == [1500]
        other.remove([3, 1500])
        assert len(other) == 1497
    assert index.memory_usage()["codes"] > 0
    assert len(pickle.loads(pickle.dumps(annx.IVFIndex(9)))) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "flat"},
        {"storage": "sq4"},
        {"storage": "codes", "bits": 3},
        {"spill": 1.0, "storage": "sq8"},
        {"spill": 0.0},
        {**ROTATED, "storage": "codes"},
        {"codec": "pq8", "rotation": "opq", "storage": "codes"},
        {"codec": "pq8", "spill": 0.5, "storage": "sq8", "residual": False},
        {"residual": False, "storage": "codes", "bits": 4},
    ],
)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_what_is_kept_is_saved_and_mapped(tmp_path, metric, options):
    index, x = built(metric, **options)
    index.remove([4, 900])
    index.save(tmp_path / "i.annx")
    others = [annx.load(tmp_path / "i.annx", mmap=m) for m in (False, True)]
    for other in (*others, pickle.loads(pickle.dumps(index))):
        assert (other.codec, other.storage) == (index.codec, index.storage)
        assert other.rotation == index.rotation
        assert other.residual == index.residual == options.get("residual", True)
        assert other.spill == index.spill == options.get("spill")
        assert other.bits == index.bits == options.get("bits", index.bits)
        found, known = other.search(x[:30], 6), index.search(x[:30], 6)
        assert np.array_equal(found.ids, known.ids)
        assert np.array_equal(found.distances, known.distances)
        assert np.array_equal(other.get(other.ids), index.get(index.ids))
        # What is mapped is copied when it changes.
        assert other.add(x[[4]]).tolist() == [1500]
        other.remove([3])
        assert other.search(x[4], 1, n_probe=12, rerank=1500).ids.tolist() == [1500]
    assert index.search(x[3], 1, rerank=1500).ids.tolist() == [3]
    # In any number of threads, and in parts.
    parts = annx.IVFIndex(20, metric, n_lists=12, n_iterations=4, **options)
    parts.train(x, threads=3)
    for at in range(0, 1500, 400):
        parts.add(x[at : at + 400], threads=3)
    assert np.array_equal(parts.get(index.ids), index.get(index.ids))
