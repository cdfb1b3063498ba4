# SPDX-License-Identifier: Apache-2.0
"""The codes of links: native against reference, step by step from the native state."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import annx
from annx.reference.file import decode, encode
from annx.reference.kernels import from_fixed, to_fixed
from annx.reference.links import LinkCodec, RandomRotation, cut_axes, principal_axes


def clustered(n, dim, *, seed=0, offset=0.0):
    """Vectors on a bent surface of few dimensions with noise, as real ones lie."""
    mix = np.random.default_rng(dim).standard_normal((10, dim))
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, 10))
    bent = np.tanh(latent @ mix / 3) + 0.15 * rng.standard_normal((n, dim))
    return (bent + offset).astype(np.float32)


def build(dim, metric="l2", dtype="float32", *, n=3000, offset=0.0, **options):
    vectors = clustered(n, dim, offset=offset)
    if dtype in ("int8", "uint8"):
        low = 0 if dtype == "uint8" else -100
        span = vectors.max() - vectors.min()
        vectors = (vectors - vectors.min()) / span * 200 + low
        vectors = np.round(vectors).astype(dtype)
    elif dtype == "float16":
        vectors = vectors.astype(np.float16)
    index = annx.GraphIndex.build(
        vectors, metric=metric, dtype=dtype, ef_construction=60, **options
    )
    return index, vectors


def code_space(vectors, metric):
    """The vectors as link codes see them."""
    rows = vectors.astype(np.float64)
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def reference_of(index):
    return LinkCodec(**index._native.link_codec())


CASES = [
    (16, "l2", "float32"),
    (50, "cosine", "float32"),
    (127, "l2", "float32"),
    (129, "ip", "float32"),
    (300, "l2", "float32"),
    (300, "ip", "float32"),
    (64, "cosine", "float16"),
    (40, "l2", "uint8"),
    (40, "cosine", "int8"),
]


@pytest.mark.parametrize(("dim", "metric", "dtype"), CASES)
def test_codes_equal_the_reference_and_estimates_are_near(dim, metric, dtype):
    index, vectors = build(dim, metric, dtype)
    native = index._native
    reference = reference_of(index)
    assert sum(reference.widths) == len(reference.axes)
    assert np.allclose(
        reference.axes @ reference.axes.T, np.eye(len(reference.axes)), atol=1e-4
    )
    rows = code_space(vectors, metric)
    rng = np.random.default_rng(1)
    differing, seen = 0, 0
    errors = []
    for node in rng.choice(len(rows), 25, replace=False):
        ids, codes, offsets, scales = native.link_codes(int(node))
        expected, want_offsets, want_scales = reference.encode(rows[node], rows[ids])
        # Near ties may fall either way; then offsets and scales differ a little too.
        same = (codes == expected).all(axis=1)
        differing += int((codes != expected).sum())
        seen += codes.size
        spread = np.abs(want_offsets).max() + 1e-12
        # Lengths come from rows rounded to bfloat16.
        assert np.allclose(scales[same], want_scales[same], rtol=2e-2, atol=1e-6)
        assert np.allclose(offsets[same], want_offsets[same], atol=2e-2 * spread)

        query = vectors[(node + 7) % len(rows)]
        if dtype == "float16":
            query = query.astype(np.float32)
        key, estimates = native.estimate_links(query[None], int(node))
        q = code_space(np.asarray(query)[None], metric)[0]
        r = rows[ids] - rows[node]
        if metric == "ip":
            true, gain = -(r @ q), 1.0
            size = np.linalg.norm(q) * np.linalg.norm(r, axis=1)
        else:
            true = ((rows[ids] - q) ** 2).sum(axis=1) - ((rows[node] - q) ** 2).sum()
            size = 2 * np.linalg.norm(q - rows[node]) * np.linalg.norm(r, axis=1)
            gain = 1.0
            if metric == "cosine":
                gain = 0.5
            if metric == "cosine" and dtype == "int8":
                gain = np.linalg.norm(query.astype(np.float64)) / 2
        if metric == "cosine" and dtype == "float32":
            gain = 1.0 if index.stats()["centred"] else 0.5
        errors.append(((estimates - key) / gain - true) / (size + 1e-9))
    assert differing <= 0.01 * seen
    expected_error = index.stats()["code_error"]
    # Rotated queries and 7-bit tables add to the codes' own error.
    assert np.std(np.concatenate(errors)) < 2.5 * expected_error + 0.02


@pytest.mark.parametrize(("dim", "metric", "dtype"), CASES)
def test_estimates_are_exact_along_the_link(dim, metric, dtype):
    """A query in the direction of a link finds that neighbour where it is."""
    index, vectors = build(dim, metric, dtype)
    reference = reference_of(index)
    rows = code_space(vectors, metric)
    for node in range(0, len(rows), 300):
        ids, codes, offsets, scales = index._native.link_codes(node)
        r = rows[ids] - rows[node]
        squares = (r**2).sum(axis=1)
        for i in range(len(ids)):
            query = rows[node] + 0.7 * r[i]
            got = reference.estimate(query, 0.0, codes, offsets, scales)[i]
            # -<q, r>, and |q - x|^2 - |q - y|^2, less what the node itself adds.
            along = -0.7 * squares[i] if metric == "ip" else -0.4 * squares[i]
            if metric == "ip":
                base = reference.estimate(rows[node], 0.0, codes, offsets, scales)[i]
                got -= base
            assert abs(got - along) < 0.03 * squares[i] + 1e-6


@pytest.mark.parametrize("dim", [257, 300, 512, 784])
def test_rotation_equals_the_reference(dim):
    index, _ = build(dim, n=2100, seed=5, degree=8)
    axes = index._native.link_codec()["axes"]
    # Column i of the axes is where axis i goes.
    assert np.allclose(axes.T, RandomRotation(dim, 5).apply(np.eye(dim)), atol=1e-5)


def test_training_agrees_with_the_reference():
    index, vectors = build(32)
    reference = reference_of(index)
    rng = np.random.default_rng(2)
    nodes = rng.choice(len(vectors), 300, replace=False)
    differences = np.concatenate(
        [vectors[index._native.neighbours(int(i))] - vectors[i] for i in nodes]
    )
    unit = differences / np.linalg.norm(differences, axis=1, keepdims=True)
    own = LinkCodec.train(differences, vectors.mean(axis=0))
    assert len(own.widths) == len(reference.widths)

    def lost(codec):
        z = unit @ codec.axes.T
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        total, at = 0.0, 0
        for width in codec.widths:
            book = codec.levels[at : at + width].T
            part = z[:, None, at : at + width] - book[None]
            total += float((part**2).sum(axis=2).min(axis=1).mean())
            at += width
        return total

    assert lost(reference) < 1.1 * lost(own)


def test_cut_is_no_worse_than_any_other():
    variances = np.array([4.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    widths, best = cut_axes(variances, 4)
    assert sum(widths) <= 6
    assert 0 < best < cut_axes(variances, 3)[1]
    axes, found = principal_axes(np.diag(np.sqrt(6 * variances)))
    assert np.allclose(found, variances)
    assert np.allclose(abs(axes), np.eye(6))


@pytest.mark.parametrize(
    ("metric", "offset"), [("l2", 0.0), ("cosine", 0.0), ("ip", 0.0), ("l2", 1000.0)]
)
@pytest.mark.parametrize("dim", [48, 270])
def test_coded_search_finds_what_plain_search_finds(dim, metric, offset):
    index, vectors = build(dim, metric, offset=offset)
    assert index.stats()["code_parts"] > 0
    queries = clustered(100, dim, seed=3, offset=offset)
    truth = annx.exact_search(queries, vectors, k=10, metric=metric)
    found = index.search(queries, k=10, ef=120)
    share = np.mean(
        [len(set(a) & set(b)) / 10 for a, b in zip(found.ids, truth.ids, strict=True)]
    )
    assert share > 0.97
    # What is returned has its exact distance, nearest first.
    for ids, distances in zip(found.ids, found.distances, strict=True):
        assert (np.diff(distances) >= 0).all()
        assert len(set(ids.tolist())) == 10
    one = index.search(queries[0], k=10, ef=120)
    assert (one.ids == found.ids[0]).all()


def test_plain_storage_has_no_codes():
    index, _ = build(32, storage="plain")
    assert index.storage == "plain"
    assert annx.GraphIndex(32).storage == "fast"
    assert index.stats()["code_parts"] == 0
    assert index.memory_usage()["codes"] == 0
    with pytest.raises(ValueError, match="storage"):
        annx.GraphIndex(32, storage="flat")


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_fast_storage_rounds_to_16_bits_and_says_so(metric, tmp_path):
    index, vectors = build(40, metric)
    exact, _ = build(40, metric, storage="float32")
    assert index.storage == "fast"
    assert exact.storage == "float32"
    assert index.stats()["narrow_rows"]
    assert not exact.stats()["narrow_rows"]
    memory, whole = index.memory_usage(), exact.memory_usage()
    assert memory["vectors"] < 0.7 * whole["vectors"]
    kept = index.get(np.arange(500))
    # Half a step of the largest element, which centring ("ip") may have doubled.
    most = np.abs(vectors[:500]).max(axis=1, keepdims=True) * (1 + (metric == "ip"))
    assert (np.abs(kept - vectors[:500]) <= 0.51 * most / 32767 * (1 + 2**-8)).all()
    if metric == "l2":
        assert (kept == from_fixed(*to_fixed(vectors[:500]))).all()
        # A vector that is kept is at no distance from itself.
        found = index.search(kept[:50], k=1, ef=100)
        assert (found.ids[:, 0] == np.arange(50)).all()
        assert (found.distances == 0).all()
    assert np.allclose(exact.get([0, 7]), vectors[[0, 7]], rtol=1e-6, atol=1e-6)
    queries = clustered(50, 40, seed=3)
    found = index.search(queries, k=10, ef=200)
    truth = annx.exact_search(queries, vectors, k=10, metric=metric)
    assert (
        np.mean(
            [np.isin(a, b).mean() for a, b in zip(found.ids, truth.ids, strict=True)]
        )
        > 0.98
    )
    # Distances are those of the vectors kept.
    rows = np.concatenate([index.get(ids) for ids in found.ids[:5]])
    own = annx.pairwise_distances(queries[:5], rows, metric=metric)
    own = np.array([own[i, 10 * i : 10 * i + 10] for i in range(5)])
    assert np.allclose(found.distances[:5], own, rtol=1e-5, atol=1e-6)
    index.save(tmp_path / "narrow.annx")
    for mmap in (False, True):
        loaded = annx.load(tmp_path / "narrow.annx", mmap=mmap)
        assert loaded.storage == "fast"
        assert (loaded.search(queries, k=10, ef=200).ids == found.ids).all()
        assert (loaded.get([5]) == index.get([5])).all()


def test_rounding_keeps_whole_numbers():
    vectors = np.round(100 * clustered(3000, 24))
    index = annx.GraphIndex.build(vectors, ef_construction=60)
    assert index.stats()["narrow_rows"]
    assert (index.get(np.arange(3000)) == vectors).all()


def test_rounded_rows_may_be_of_any_size():
    index, vectors = build(24)
    sizes = np.float32([0, 1e-42, 1e-30, 1e-6, 1e6, 1e12, 3e18])
    odd = sizes[:, None] * clustered(7, 24, seed=5)
    index.add(odd)
    assert index.stats()["narrow_rows"]
    assert (index.get(np.arange(3000, 3007)) == from_fixed(*to_fixed(odd))).all()
    assert (index.get(np.arange(3000)) == from_fixed(*to_fixed(vectors))).all()
    found = index.search(np.concatenate([odd[4:], vectors[:1]]), k=1, ef=100)
    assert found.ids[:, 0].tolist() == [3004, 3005, 3006, 0]


@pytest.mark.parametrize("step", [np.nan, np.inf, -np.inf, 3e38, -1.0, 0.0])
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_damaged_steps_give_no_nan(metric, step, tmp_path):
    index, vectors = build(24, metric, n=2100, degree=8)
    path = tmp_path / "damaged.annx"
    index.save(path)
    file = decode(path.read_bytes())
    rows = np.frombuffer(file.sections["rows.high"], np.uint8).reshape(2100, -1).copy()
    rows[::3, :4] = np.float32([step]).view(np.uint8)
    sections = {**file.sections, "rows.high": rows.tobytes()}
    path.write_bytes(encode(file.kind, file.meta, sections))
    loaded = annx.load(path)
    found = loaded.search(vectors[:20], k=10, ef=100)
    assert not np.isnan(found.distances).any()
    loaded.add(vectors[:300])
    assert not np.isnan(loaded.search(vectors[:20], k=10).distances).any()


@pytest.mark.parametrize("layout", [3, 5])
def test_rows_of_a_layout_that_does_not_fit_are_refused(layout, tmp_path):
    """3 is none any more; 5, of rounded rows, is not for l1."""
    path = tmp_path / "damaged.annx"
    index = annx.GraphIndex(8, "l1")
    index.add(clustered(20, 8))
    index.save(path)
    file = decode(path.read_bytes())
    meta = {**file.meta, "rows.layout": layout}
    path.write_bytes(encode(file.kind, meta, file.sections))
    with pytest.raises(annx.FormatError, match=r"rows\.layout"):
        annx.load(path)


def test_rows_that_16_bits_cannot_tell_apart_are_not_rounded():
    rng = np.random.default_rng(0)
    centres = 100 * rng.standard_normal((40, 24))
    rows = centres[rng.integers(40, size=3000)] + 1e-2 * rng.standard_normal((3000, 24))
    index = annx.GraphIndex.build(rows.astype(np.float32), ef_construction=60)
    assert not index.stats()["narrow_rows"]
    found = index.search(rows[:200].astype(np.float32), k=1, ef=100)
    assert (found.ids[:, 0] == np.arange(200)).mean() > 0.97


def test_rows_that_come_closer_later_are_not_rounded():
    rng = np.random.default_rng(1)
    wide = 100 * rng.standard_normal((2500, 24))
    near = wide[rng.integers(40, size=7000)] + 0.01 * rng.standard_normal((7000, 24))
    index = annx.GraphIndex.build(wide.astype(np.float32), ef_construction=60)
    assert index.stats()["narrow_rows"]
    near = near.astype(np.float32)
    index.add(near)
    assert not index.stats()["narrow_rows"]
    # Steps at 100 are near 0.01: the last ones came after that was noticed.
    assert (index.get(np.arange(9200, 9500)) == near[6700:7000]).all()


def test_links_added_later_are_coded_and_found():
    vectors = clustered(5000, 40)
    index = annx.GraphIndex(40, ef_construction=60)
    index.add(vectors[:2500])
    assert index.stats()["code_parts"] > 0
    for begin in range(2500, 2600, 10):
        index.add(vectors[begin : begin + 10])
    index.add(vectors[2600:])
    for node in range(0, 5000, 250):
        scales = index._native.link_codes(node)[3]
        assert np.isfinite(scales).all()
    found = index.search(vectors[::10], k=1, ef=60)
    assert (found.ids[:, 0] == np.arange(0, 5000, 10)).mean() > 0.99


def test_codes_do_not_depend_on_threads():
    one = annx.GraphIndex(40, ef_construction=40)
    two = annx.GraphIndex(40, ef_construction=40)
    vectors = clustered(4000, 40)
    one.add(vectors, threads=1)
    two.add(vectors, threads=2)
    for node in range(0, 4000, 100):
        for a, b in zip(
            one._native.link_codes(node), two._native.link_codes(node), strict=True
        ):
            assert (a == b).all()


def test_an_interrupted_add_leaves_links_that_searches_ask_rows_for():
    vectors = clustered(4000, 24)
    index = annx.GraphIndex(24, ef_construction=40)
    index.add(vectors[:2500])

    class Stop(Exception):
        pass

    def stop(done, total):
        if done > 600:
            raise Stop

    with pytest.raises(Stop):
        index.add(vectors[2500:], progress=stop)
    kept = len(index)
    assert 2500 < kept < 4000
    found = index.search(vectors[2500:kept], k=1, ef=60)
    assert (found.ids[:, 0] == np.arange(2500, kept)).mean() > 0.98
    index.add(vectors[kept:])
    assert all(
        np.isfinite(index._native.link_codes(i)[3]).all() for i in range(0, 4000, 50)
    )


def test_links_that_a_file_holds_without_codes_are_coded_by_the_next_add(tmp_path):
    vectors = clustered(3200, 24)
    index = annx.GraphIndex(24, ef_construction=40)
    index.add(vectors[:2500])

    def stop(done, total):
        if done >= 512:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.add(vectors[2500:], progress=stop)

    def uncoded(index):
        return sum(
            len(index._native.link_codes(i)[0]) < len(index._native.neighbours(i))
            for i in range(len(index))
        )

    assert uncoded(index) > 0
    index.save(tmp_path / "part.annx")
    loaded = annx.load(tmp_path / "part.annx")
    assert uncoded(loaded) == uncoded(index)
    loaded.add(vectors[:1] + 1)
    assert uncoded(loaded) == 0


def test_duplicates_and_constants_are_no_trouble():
    for vectors in (
        np.ones((3000, 20), np.float32),
        np.repeat(clustered(30, 20), 100, axis=0),
        np.zeros((2500, 20), np.float32),
    ):
        for metric in ("l2", "cosine", "ip"):
            index = annx.GraphIndex.build(vectors, metric=metric, ef_construction=20)
            found = index.search(vectors[:5], k=5)
            assert (found.ids >= 0).all()
            if metric == "l2":
                assert np.allclose(found.distances, 0, atol=1e-5)


def test_coded_index_survives_a_file(tmp_path):
    index, _ = build(40, "cosine")
    queries = clustered(20, 40, seed=9)
    expected = index.search(queries, k=5)
    index.save(tmp_path / "links.annx")
    for mmap in (False, True):
        loaded = annx.load(tmp_path / "links.annx", mmap=mmap)
        found = loaded.search(queries, k=5)
        assert (found.ids == expected.ids).all()
        assert (found.distances == expected.distances).all()
        loaded.add(clustered(600, 40, seed=11))
        assert len(loaded) == 3600
        assert loaded.search(queries, k=5).ids.shape == (20, 5)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.7])
def test_filters_hold_on_a_coded_index(share):
    index, vectors = build(48)
    rng = np.random.default_rng(4)
    allowed = np.flatnonzero(rng.random(len(vectors)) < share)
    queries = clustered(50, 48, seed=8)
    truth, _ = annx.exact_search(queries, vectors[allowed], k=5)
    found = index.search(queries, k=5, ef=100, filter=allowed).ids
    assert np.isin(found, allowed).all()
    near = [np.isin(f, allowed[t]).mean() for f, t in zip(found, truth, strict=True)]
    assert np.mean(near) > 0.95


def test_searches_run_while_codes_are_learnt_and_links_change():
    vectors = clustered(6000, 32)
    index = annx.GraphIndex(32, ef_construction=40)
    index.add(vectors[:1500])
    stop = threading.Event()
    wrong: list[str] = []

    def search():
        while not stop.is_set():
            found = index.search(vectors[:50], k=1, ef=40, threads=1)
            if (found.ids[:, 0] != np.arange(50)).mean() > 0.05:
                wrong.append("lost rows")
            if not np.isfinite(found.distances).all():
                wrong.append("no answer")

    readers = [threading.Thread(target=search) for _ in range(2)]
    for reader in readers:
        reader.start()
    for begin in range(1500, 6000, 500):
        index.add(vectors[begin : begin + 500], threads=1)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert index.stats()["code_parts"] > 0


def test_damaged_codes_never_crash_a_search(tmp_path):
    index, vectors = build(24, n=2100, degree=8)
    path = tmp_path / "whole.annx"
    index.save(path)
    whole = path.read_bytes()
    damaged = tmp_path / "damaged.annx"
    rng = np.random.default_rng(0)
    queries = vectors[:4]
    survived = 0
    for _ in range(150):
        data = bytearray(whole)
        # A run of bytes, so that links, codes and factors go wrong together.
        at = int(rng.integers(len(data)))
        data[at : at + 64] = rng.bytes(len(data[at : at + 64]))
        damaged.write_bytes(data)
        for mmap in (False, True):
            with pytest.raises(annx.FormatError):
                annx.load(damaged, mmap=mmap).search(queries)
            try:
                loaded = annx.load(damaged, mmap=mmap, verify="structure")
            except annx.FormatError:
                continue
            found = loaded.search(queries, k=5, ef=20)
            assert found.ids.shape == (4, 5)
            survived += 1
    assert survived > 100
    for size in rng.integers(len(whole), size=60):
        damaged.write_bytes(whole[:size])
        with pytest.raises(annx.FormatError):
            annx.load(damaged, verify="structure")


@pytest.mark.parametrize("width", [1.0, 1e-2, 1e-3, 1e-4])
def test_codes_of_short_links_are_those_of_long_ones(width):
    """Rounding what links are coded from must not show where links are short."""
    rng = np.random.default_rng(3)
    centres = 3 * rng.standard_normal((15, 64))
    vectors = np.repeat(centres, 200, axis=0) + width * clustered(3000, 64)
    vectors = vectors.astype(np.float32)
    index = annx.GraphIndex.build(vectors, ef_construction=60, threads=1)
    reference = reference_of(index)
    rows = vectors.astype(np.float64)
    differing = seen = 0
    for node in range(0, 3000, 100):
        ids, codes, _, _ = index._native.link_codes(node)
        near = ((rows[ids] - rows[node]) ** 2).sum(axis=1) < (30 * width) ** 2
        expected = reference.encode(rows[node], rows[ids])[0]
        differing += int((codes != expected)[near].sum())
        seen += codes[near].size
    assert seen > 5000
    assert differing <= 0.02 * seen
