# SPDX-License-Identifier: Apache-2.0
"""GraphIndex: its contract, its errors, and what happens when it is interrupted."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import annx
from annx.reference import graph as reference
from annx.reference.flat import pairwise_distances


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).standard_normal((1500, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def index(rows):
    return annx.GraphIndex.build(rows, degree=8, ef_construction=40)


def test_search_unpacks_and_pads(rows, index):
    ids, distances = index.search(rows[0], k=5)
    assert ids.shape == distances.shape == (5,)
    assert ids.dtype == np.int64
    assert distances.dtype == np.float32
    assert ids[0] == 0
    assert distances[0] == 0
    few = annx.GraphIndex.build(rows[:3])
    ids, distances = few.search(rows[:2], k=6)
    assert ids.shape == (2, 6)
    assert (ids[:, 3:] == -1).all()
    assert np.isinf(distances[:, 3:]).all()
    ids, distances = annx.GraphIndex(20).search(rows[0], k=2)
    assert ids.tolist() == [-1, -1]
    assert index.search(rows[:0], k=2).ids.shape == (0, 2)


def test_recall_rises_with_effort(rows, index):
    truth, _ = annx.exact_search(rows[:200], rows, 10)
    recalls = []
    for ef in (10, 40, 200, 1500):
        ids, _ = index.search(rows[:200], k=10, ef=ef)
        recalls.append(
            np.mean([np.isin(a, b).mean() for a, b in zip(ids, truth, strict=True)])
        )
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0


def test_given_ids_are_kept(rows):
    index = annx.GraphIndex(20)
    given = np.array([7, 5, 1 << 40])
    assert index.add(rows[:3], given).tolist() == given.tolist()
    assert index.add(rows[3:5]).tolist() == [(1 << 40) + 1, (1 << 40) + 2]
    assert 7 in index
    assert 6 not in index
    assert "7" not in index
    assert index.search(rows[1], k=1).ids.tolist() == [5]
    np.testing.assert_array_equal(index.get([5, 7]), rows[[1, 0]])
    assert sorted(index.ids.tolist())[:2] == [5, 7]
    assert len(index) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 3, "metric": "euclid"}, "metric is 'euclid'"),
        ({"dim": 3, "metric": "hamming"}, "metric is 'hamming'"),
        ({"dim": 3, "dtype": "bits"}, "dtype is 'bits'"),
        ({"dim": 3, "degree": 3}, "degree is 3"),
        ({"dim": 3, "degree": 9}, "degree is 9"),
        ({"dim": 3, "degree": 1000}, "degree is 1000"),
        ({"dim": 3, "ef_construction": 0}, "ef_construction is 0"),
        ({"dim": 3, "alpha": 0.5}, "alpha is 0.5"),
        ({"dim": 3, "alpha": 3.0}, "alpha is 3"),
        ({"dim": 3, "alpha": np.nan}, "alpha is nan"),
        ({"dim": 3, "seed": -1}, "seed is -1"),
        ({"dim": 40000, "dtype": "int8"}, "dim is 40000"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        annx.GraphIndex(**options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"vectors": np.zeros((2, 3))}, ValueError, "vectors has 3 columns"),
        ({"vectors": np.zeros(20)}, ValueError, "vectors has 1 dimensions"),
        ({"vectors": np.full((1, 20), np.nan)}, ValueError, "vectors"),
        ({"vectors": np.full((1, 20), np.inf)}, ValueError, "vectors"),
        ({"vectors": np.full((1, 20), 1e30)}, ValueError, "vectors"),
        ({"vectors": [["a"] * 20]}, TypeError, "vectors"),
        ({"vectors": np.zeros((2, 20)), "ids": [1, 1]}, ValueError, "ids holds 1 more"),
        ({"vectors": np.zeros((2, 20)), "ids": [-1, 4]}, ValueError, "ids holds -1"),
        ({"vectors": np.zeros((2, 20)), "ids": [0, 9999]}, ValueError, "0"),
        (
            {"vectors": np.zeros((2, 20)), "ids": [9998]},
            ValueError,
            "ids has 1 entries",
        ),
        ({"vectors": np.zeros((2, 20)), "ids": [0.5, 1.5]}, TypeError, "ids has dtype"),
        ({"vectors": np.zeros((2, 20)), "threads": 0}, ValueError, "threads is 0"),
        ({"vectors": np.zeros((2, 20)), "progress": 3}, TypeError, "progress"),
    ],
)
def test_bad_add_changes_nothing(index, arguments, error, message):
    before = index.__reduce__()
    with pytest.raises(error, match=message):
        index.add(**arguments)
    assert index.__reduce__() == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"queries": np.zeros(3)}, ValueError, "queries has 3 columns"),
        ({"queries": np.zeros((1, 1, 20))}, ValueError, "queries has 3 dimensions"),
        ({"queries": np.full(20, np.nan)}, ValueError, "queries"),
        ({"queries": np.full(20, np.inf)}, ValueError, "queries"),
        ({"queries": np.zeros(20), "k": 0}, ValueError, "k is 0"),
        ({"queries": np.zeros(20), "k": 1.5}, TypeError, "k is of type float"),
        ({"queries": np.zeros(20), "ef": 0}, ValueError, "ef is 0"),
        ({"queries": np.zeros(20), "ef": 2.0}, TypeError, "ef is of type float"),
        ({"queries": np.zeros(20), "threads": -1}, ValueError, "threads is -1"),
        ({"queries": np.zeros(20), "filter": np.zeros(3, bool)}, TypeError, "id_set"),
    ],
)
def test_bad_search_is_refused(index, arguments, error, message):
    with pytest.raises(error, match=message):
        index.search(**arguments)


def test_unknown_id_is_a_key_error(index):
    with pytest.raises(KeyError, match="4000"):
        index.get([4000])
    with pytest.raises(KeyError, match="4000"):
        index.neighbours(4000)


def test_interrupted_add_keeps_whole_batches(rows):
    index = annx.GraphIndex(20, degree=8, ef_construction=200)
    # Long enough that there are reports on the way, however fast the machine. The first
    # vectors would be linked at once.
    many = np.tile(rows, (40, 1))
    index.add(many[:1])
    many = many[1:]
    calls = []

    def stop(done, total):
        calls.append(done)
        assert total == len(many)
        if len(index) >= 513:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        index.add(many, progress=stop)
    kept = len(index)
    assert 1 < kept < len(many)
    assert index.stats()["reachable"] == kept
    if hasattr(caught.value, "__notes__"):
        assert "vectors were added" in caught.value.__notes__[0]
    np.testing.assert_array_equal(index.get(index.ids[:512]), rows[:512])
    more = index.add(rows[:3])
    assert len(index) == kept + 3
    near = index.search(rows[1], k=len(index), ef=len(index)).ids
    assert np.isin(more, near).all()


def test_progress_ends_with_the_total(rows):
    seen = []
    annx.GraphIndex.build(rows[:600], progress=lambda *at: seen.append(at))
    assert seen[-1] == (600, 600)
    assert seen == sorted(seen)


def test_searching_while_adding(rows):
    index = annx.GraphIndex.build(rows[:600], degree=8, ef_construction=40)
    errors = []
    stop = threading.Event()

    def read():
        try:
            while not stop.is_set():
                ids, distances = index.search(rows[:20], k=3, ef=20, threads=1)
                assert (ids >= 0).all()
                assert (np.diff(distances, axis=1) >= 0).all()
                index.get(ids[0])
                assert index.__reduce__()
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    writers = [
        threading.Thread(target=index.add, args=(part,))
        for part in np.array_split(rows[600:], 6)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert len(index) == len(rows)
    assert index.stats()["reachable"] == len(rows)


def test_memory_usage_adds_up(rows, index):
    usage = index.memory_usage()
    assert usage["total"] == sum(v for name, v in usage.items() if name != "total")
    assert usage["vectors"] >= rows.nbytes
    assert usage["links"] >= len(rows) * 8 * 4


def test_queries_of_other_types_are_converted(rows, index):
    expected = index.search(rows[:4], k=3).ids
    for other in (
        rows[:4].astype(np.float64),
        rows[:4].tolist(),
        np.asfortranarray(rows[:4]),
    ):
        np.testing.assert_array_equal(index.search(other, k=3).ids, expected)


def many(n, dim, kind, *, seed=0):
    """More rows than it takes to be linked at once."""
    rng = np.random.default_rng(seed)
    if kind == "equal":
        return np.ones((n, dim), np.float32)
    if kind == "duplicates":
        return np.repeat(rng.standard_normal((n // 50 + 1, dim)), 50, axis=0)[:n]
    if kind == "sorted clusters":
        centres = 20 * rng.standard_normal((60, dim))
        which = np.sort(rng.integers(60, size=n))
        return centres[which] + rng.standard_normal((n, dim))
    latent = rng.standard_normal((n, 8))
    return np.tanh(latent @ rng.standard_normal((8, dim)) / 2)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("kind", ["bent", "sorted clusters", "duplicates", "equal"])
def test_many_first_rows_are_all_found_and_reached(metric, kind):
    vectors = many(9000, 20, kind).astype(np.float32)
    index = annx.GraphIndex(20, metric, storage="float32")
    index.add(vectors)
    stats = index.stats()
    assert stats["reachable"] == 9000
    assert stats["max_links"] <= index.degree
    queries = vectors[::90] + np.float32(0.01)
    found = index.search(queries, k=10, ef=100)
    truth = annx.exact_search(queries, vectors, k=10, metric=metric)
    # By distance: duplicates may stand for one another.
    near = found.distances <= truth.distances[:, -1:] * (1 + 1e-4) + 1e-5
    assert near.mean() > 0.98


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_many_first_rows_give_the_same_graph_on_any_number_of_threads(dtype):
    vectors = many(8300, 24, "bent")
    vectors = np.round(100 * vectors + 128) if dtype == "uint8" else vectors
    vectors = vectors.astype("float32" if dtype == "bfloat16" else dtype)
    ids = np.arange(8300)[::-1] * 3
    one = annx.GraphIndex(24, dtype=dtype, seed=5)
    two = annx.GraphIndex(24, dtype=dtype, seed=5)
    one.add(vectors, ids=ids, threads=1)
    two.add(vectors, ids=ids, threads=2)
    for id in ids[::100].tolist():
        assert one.neighbours(id).tolist() == two.neighbours(id).tolist()
    # It grows like any other.
    more = vectors[:200]
    one.add(more, ids=100_000 + np.arange(200))
    found = one.search(vectors[200:300], k=1, ef=60)
    assert (found.ids[:, 0] == ids[200:300]).mean() > 0.97
    assert one.stats()["reachable"] == 8500


@pytest.mark.parametrize("after", [0, 1, 4000, 8900])
def test_many_first_rows_that_are_interrupted_leave_all_or_nothing(after):
    vectors = many(9000, 16, "bent").astype(np.float32)
    index = annx.GraphIndex(16)
    seen = []

    def stop(done, total):
        assert total == 9000
        seen.append(done)
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.add(vectors, progress=stop)
    assert seen == sorted(seen)
    assert len(index) in (0, 9000)
    index.add(vectors[:100], ids=20_000 + np.arange(100))
    assert 20_003 in index.search(vectors[3], k=2, ef=60).ids.tolist()


def test_many_first_rows_that_squares_overflow_are_linked_all_the_same():
    # All-pairs search does not serve where squares reach 1e30: they come in batches.
    vectors = 1e17 * many(8192, 8, "bent").astype(np.float32)
    index = annx.GraphIndex(8, degree=8, ef_construction=16)
    index.add(vectors)
    assert index.stats()["reachable"] == 8192
    found = index.search(vectors[:50], k=1, ef=64)
    assert (found.ids[:, 0] == np.arange(50)).mean() > 0.9


def test_known_neighbours_make_the_graph(rows):
    near = annx.knn_graph(rows, 30).ids
    index = annx.GraphIndex.build(rows, neighbours=near)
    truth = annx.exact_search(rows[:100] + 0.1, rows, k=10).ids
    found = index.search(rows[:100] + 0.1, k=10, ef=100).ids
    pairs = zip(truth, found, strict=True)
    assert np.mean([np.isin(t, f).mean() for t, f in pairs]) > 0.97
    assert index.stats()["reachable"] == len(rows)
    # A vector among its own neighbours changes nothing, nor does an end marked by -1.
    own = np.arange(len(rows))[:, None]
    longer = np.concatenate([own, near, np.full_like(own, -1)], axis=1)
    other = annx.GraphIndex.build(rows, neighbours=longer)
    for id in range(0, len(rows), 50):
        assert other.neighbours(id).tolist() == index.neighbours(id).tolist()
    index.add(rows[:3])
    assert len(index) == len(rows) + 3


@pytest.mark.parametrize(
    ("neighbours", "metric", "error", "message"),
    [
        (np.zeros((1500, 2), int), "ip", ValueError, "neighbours need metric"),
        (np.zeros((1500, 2)), "l2", TypeError, "neighbours is of dtype float64"),
        (np.zeros((1499, 2), int), "l2", ValueError, "has shape"),
        (np.zeros((1500, 0), int), "l2", ValueError, "has shape"),
        (np.zeros(1500, int), "l2", ValueError, "has shape"),
        (np.full((1500, 1), 1500), "l2", ValueError, "from 1500 to 1500"),
        (np.full((1500, 1), -2), "l2", ValueError, "from -2 to -2"),
    ],
)
def test_bad_neighbours_are_refused(rows, neighbours, metric, error, message):
    with pytest.raises(error, match=message):
        annx.GraphIndex.build(rows[:1500], metric=metric, neighbours=neighbours)


@pytest.fixture(scope="module")
def asked():
    """Vectors, and queries from elsewhere: what is near to them is not near itself."""
    rng = np.random.default_rng(5)
    basis = rng.standard_normal((6, 24)) / np.sqrt(6)
    rows = rng.standard_normal((9000, 6)) @ basis
    rows += 0.5 * rng.standard_normal(rows.shape)
    queries = rng.standard_normal((1200, 6)) @ basis + rng.standard_normal((1200, 24))
    return rows.astype(np.float32), 1.5 * queries.astype(np.float32)


@pytest.mark.parametrize("storage", ["fast", "plain", "small"])
def test_queries_given_beforehand_serve_queries_like_them(asked, storage):
    rows, queries = asked
    sample, others = queries[:800], queries[800:]
    options = {"storage": storage, "degree": 24, "ef_construction": 60}
    index = annx.GraphIndex.build(rows, **options)
    truth = annx.exact_search(others, index.get(index.ids), 10).ids
    before = index.stats()

    def recall(index):
        # As wide for both: growth, which they measure, says how far a walk goes.
        found = index.search(others, k=10, ef=len(rows) // 100, filter=index.ids).ids
        pairs = zip(found, truth, strict=True)
        return np.mean([np.isin(t, f).mean() for f, t in pairs])

    lost = 1 - recall(index)
    index.add(rows[:0], queries=sample)
    after = index.stats()
    assert before["links"] < after["links"]
    assert after["max_links"] <= 24
    assert after["reachable"] == len(rows)
    assert after["growth"] > before["growth"]
    assert 1 - recall(index) < 0.8 * lost
    one, two = (
        annx.GraphIndex.build(rows, queries=sample, threads=threads, **options)
        for threads in (1, 2)
    )
    assert one.__reduce__() == two.__reduce__()
    assert 1 - recall(one) < 0.8 * lost
    for built in (one, index):
        for id in range(0, len(rows), 100) if storage == "fast" else ():
            coded = built._native.link_codes(id)[0]
            assert coded.tolist() == built.neighbours(id).tolist()


def test_no_queries_change_nothing(rows):
    options = {"degree": 8, "ef_construction": 40}
    plain = annx.GraphIndex.build(rows[:700], **options).__reduce__()
    none = annx.GraphIndex.build(rows[:700], queries=rows[:0], **options)
    assert none.__reduce__() == plain
    empty = annx.GraphIndex(20, **options)
    assert empty.add(rows[:0], queries=rows[:5]).tolist() == []
    empty.add(rows[:700])
    assert empty.__reduce__() == plain
    # One query, of a shape as `search` takes it.
    single = annx.GraphIndex.build(rows[:700], queries=rows[800], **options)
    assert single.stats()["reachable"] == 700


@pytest.mark.parametrize(
    ("queries", "error", "message"),
    [
        (np.zeros((2, 3)), ValueError, "queries has 3 columns"),
        (np.zeros((1, 1, 20)), ValueError, "queries has 3 dimensions"),
        (np.full((2, 20), np.nan), ValueError, "queries"),
        (np.full((2, 20), np.inf), ValueError, "queries"),
        ([["a"] * 20], TypeError, "queries"),
    ],
)
def test_bad_queries_given_beforehand_change_nothing(rows, queries, error, message):
    index = annx.GraphIndex.build(rows[:100], degree=8)
    before = index.__reduce__()
    with pytest.raises(error, match=message):
        index.add(rows[:5], queries=queries)
    assert index.__reduce__() == before
    with pytest.raises(error, match=message):
        annx.GraphIndex.build(rows[:100], queries=queries)
    small = annx.GraphIndex(20, dtype="int8")
    with pytest.raises((TypeError, ValueError), match="queries"):
        small.add(np.ones((3, 20), np.int8), queries=np.full((1, 20), 0.5))
    assert len(small) == 0


@pytest.mark.parametrize("storage", ["fast", "plain", "small"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_links_for_queries_that_are_interrupted_leave_an_index(asked, storage, after):
    rows, queries = asked[0][:2500], asked[1][:300]
    index = annx.GraphIndex.build(rows, storage=storage, degree=16, ef_construction=100)
    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.add(rows[:0], queries=queries, progress=stop)
    assert len(index) == len(rows)
    found = index.search(rows[:50], k=1, ef=50).ids[:, 0]
    assert (found == np.arange(50)).mean() > 0.9
    index.add(rows[:3], queries=queries)
    facts = index.stats()
    assert facts["reachable"] == len(rows) + 3
    assert facts["max_links"] <= 16


@pytest.mark.parametrize(
    ("storage", "dim", "clusters", "width", "ef", "seed"),
    [("plain", 32, 60, 0.3, 40, 3), ("fast", 24, 200, 0.1, 20, 2)],
)
def test_walks_find_the_way_into_clusters(storage, dim, clusters, width, ef, seed):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))

    def drawn(n):
        noise = width * rng.standard_normal((n, dim))
        return (centres[rng.integers(0, clusters, n)] + noise).astype(np.float32)

    vectors = drawn(20000)
    queries = drawn(400)
    index = annx.GraphIndex.build(vectors, storage=storage)
    true = annx.exact_search(queries, vectors, 10).ids
    found = index.search(queries, 10, ef=ef).ids
    hits = [len(set(a) & set(b)) for a, b in zip(found, true, strict=True)]
    # A walk that ends in the wrong cluster finds nothing at all: 25 and 5 of these
    # did when walks began at rows drawn from all.
    assert hits.count(0) <= 2
    assert np.mean(hits) > 9.7


def whole_numbers(n):
    """Rows in clusters, of which no distance is rounded."""
    rng = np.random.default_rng(4)
    centres = rng.integers(0, 200, (40, 16))
    return centres[rng.integers(0, 40, n)] + rng.integers(0, 9, (n, 16))


@pytest.mark.parametrize(("metric", "dtype"), [("l2", "float32"), ("ip", "uint8")])
def test_walks_begin_at_the_heads_of_the_reference(metric, dtype):
    rows = whole_numbers(3000)
    index = annx.GraphIndex(16, metric=metric, dtype=dtype, seed=3)
    index.add(rows.astype(dtype))
    heads = index._native.link_codes(-1)[0].tolist()
    assert heads == reference.spread_drawn(rows, 3000, 3, 256, [])


def test_walks_begin_at_the_heads_of_the_reference_where_lists_are_linked():
    rows = whole_numbers(2100)
    squares = pairwise_distances(rows, rows, metric="l2")
    lists = np.argsort(squares, axis=1, kind="stable")[:, 1:25]
    vectors = rows.astype(np.float32)
    index = annx.GraphIndex.build(vectors, neighbours=lists, seed=3)
    levels = reference.find_levels(lists.tolist(), lambda s, t: squares[s, t], 3)
    assert len(levels) > 1
    entries = reference.choose_entries(rows, levels, reference.entries_of(2100))
    heads = reference.choose_heads(rows, levels, 256, entries)
    assert len(entries) == 65
    assert len(heads) == 256
    assert index._native.link_codes(-1)[0].tolist() == heads


def test_walks_begin_in_every_cluster():
    rng = np.random.default_rng(5)
    which = rng.choice(150, 20000, p=rng.dirichlet(np.full(150, 0.7)))
    centres = rng.standard_normal((150, 24))
    vectors = centres[which] + 0.1 * rng.standard_normal((20000, 24))
    index = annx.GraphIndex.build(vectors.astype(np.float32), threads=1)
    heads = index._native.link_codes(-1)[0]
    rows = np.bincount(which, minlength=150)
    # Smaller ones may have no row among the candidates.
    assert set(np.flatnonzero(rows > 5)) <= set(which[heads].tolist())


def test_walks_begin_where_they_did_when_a_saved_index_grows(tmp_path):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((17000, 16)).astype(np.float32)

    def begins(index):
        return set(index._native.link_codes(-1)[0].tolist())

    index = annx.GraphIndex.build(vectors[:8200], threads=1)
    before = begins(index)
    assert 0 in before
    assert 200 < len(before) <= 256
    index.save(tmp_path / "a")
    for grown in (index, annx.load(tmp_path / "a")):
        grown.add(vectors[8200:], threads=1)
        after = begins(grown)
        assert 200 < len(after) <= 257
        # Half of the heads stay, and others come from all rows.
        assert 100 < len(before & after) < 160
        assert max(after) >= 8200
    assert begins(index) == after
