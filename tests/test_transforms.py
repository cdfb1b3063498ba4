# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from annx import transforms
from annx.reference import transforms as reference
from annx.transforms import (
    PCA,
    Bilinear,
    Centre,
    Chain,
    Linear,
    Mask,
    Normalise,
    Rotation,
)
from isas import outputs_by_isa

EPS = 2.0**-24


def data(n=500, dim=12, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def flat_spectrum(n, dim, seed=0):
    """Rows whose components all differ in strength, so that none can be exchanged."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return (rng.standard_normal((n, dim)) * 1.5 ** -np.arange(dim)) @ axes


def make_both(name, dim, seed, kind):
    """A transform that takes `dim` dimensions, its twin, and what bounds its error."""
    rng = np.random.default_rng(seed)
    out = int(rng.integers(1, 20))
    if name == "Centre":
        mean = own.make_rows(seed, 1, dim, kind=kind)[0]
        arguments = (mean,)
    elif name in ("Linear", "PCA"):
        arguments = (rng.standard_normal((out, dim)).astype(np.float32),)
    elif name == "Bilinear":
        arguments = (rng.standard_normal((dim, out)).astype(np.float32),)
    elif name == "Mask":
        arguments = (dim, rng.integers(0, dim, out))
    else:
        arguments = (dim,)
    return getattr(transforms, name)(*arguments), getattr(reference, name)(*arguments)


NAMES = sorted(set(transforms.__all__) - {"Transform", "Chain"})


@given(st.sampled_from(NAMES), own.seeds, own.dims, st.integers(0, 70), own.kinds)
def test_transform_equals_reference(name, seed, dim, n, kind):
    native, twin = make_both(name, dim, seed, kind)
    for queries in (False, True):
        width = native.query_dim if queries else native.input_dim
        assert (native.dim, width) == (
            twin.dim,
            twin.query_dim if queries else twin.input_dim,
        )
        rows = own.make_rows(seed, n, width, kind=kind)
        call = "transform_queries" if queries else "transform"
        found = getattr(native, call)(rows)
        expected = getattr(twin, call)(rows)
        assert found.dtype == np.float32
        assert found.shape == (n, native.dim)
        # Terms of a product are at most |row| |matrix row|; other steps lose less.
        length = np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
        if name == "Centre":
            length = length + np.linalg.norm(native.mean.astype(float))
        weight = 1.0
        if name in ("Linear", "PCA", "Bilinear"):
            matrix = native.components if name == "PCA" else native.matrix
            weight = np.linalg.norm(matrix.astype(float), axis=None)
        bound = (width / 32 + 40) * EPS * weight * np.maximum(length, 1)
        assert (np.abs(found - expected) <= bound).all()


@given(own.seeds, own.dims, own.kinds, st.integers(1, 200))
def test_row_by_itself_gives_same_bits(seed, dim, kind, n):
    rng = np.random.default_rng(seed)
    chain = Chain(
        Linear(rng.standard_normal((17, dim))),
        PCA(rng.standard_normal((9, 17)), rng.standard_normal(17)),
        Rotation(9),
        Normalise(9),
    )
    rows = own.make_rows(seed, n, dim, kind=kind)
    found = chain.transform(rows)
    assert np.array_equal(found, chain.transform(rows, threads=2))
    assert np.array_equal(found, chain.transform_queries(rows, threads=1))
    assert np.array_equal(
        found[::-1], chain.transform(np.ascontiguousarray(rows[::-1]))
    )
    for i in (0, n // 2, n - 1):
        assert np.array_equal(found[i], chain.transform_queries(rows[i]))
        assert np.array_equal(found[i], chain.transform_queries(rows[i].tolist()))


def test_every_instruction_set_gives_same_bits():
    script = """
import hashlib
import numpy as np
from annx.transforms import *
rng = np.random.default_rng(0)
x = rng.standard_normal((50, 67)).astype("f4")
chain = Chain(
    Centre(x[0]), PCA(x[:40], x[1], np.arange(40.0), whiten=True), Rotation(40),
    Normalise(40), Mask(40, range(3, 37)), Linear(rng.standard_normal((5, 34))),
)
print(hashlib.sha256(chain.transform(x).tobytes()).hexdigest())
"""
    assert len(outputs_by_isa(script)) == 1


# --- principal components ------------------------------------------------------------


@given(own.seeds, st.integers(1, 60), own.small_dims, own.kinds, st.booleans())
def test_components_span_what_the_reference_finds(seed, n, dim, kind, whiten):
    rows = own.make_rows(seed, n, dim, kind=kind)
    native = PCA.fit(rows, whiten=whiten)
    twin = reference.PCA.fit(rows, whiten=whiten)
    total = np.square(rows.astype(float)).sum() / n
    noise = 2 * total * reference.NOISE**2
    assert (np.diff(native.variances) <= 1e-12 * total).all()
    clear = (native.variances > noise) & (twin.variances > noise)
    unclear = np.maximum(native.variances, twin.variances) <= noise
    assert (clear | unclear).all()
    assert native.variances == pytest.approx(twin.variances, rel=1e-6, abs=noise)
    components = native.components.astype(float)
    assert components @ components.T == pytest.approx(np.eye(dim), abs=1e-5)
    # The covariance that the components and variances stand for.
    ours = components.T * native.variances @ components
    theirs = twin.components.T * twin.variances @ twin.components
    assert ours == pytest.approx(theirs, abs=1e-6 * max(total, 1e-30))


def test_components_are_those_of_the_reference():
    rows = flat_spectrum(400, 10) + 3
    native = PCA.fit(rows, 7, whiten=True)
    twin = reference.PCA.fit(rows.astype(np.float32), 7, whiten=True)
    assert native.components == pytest.approx(twin.components, abs=1e-6)
    assert native.mean == pytest.approx(twin.mean, abs=1e-6)
    assert native.scales == pytest.approx(twin.scales, rel=1e-6)
    assert native.transform(rows) == pytest.approx(twin.transform(rows), abs=1e-4)


def test_components_do_not_depend_on_the_order_of_rows():
    rows = flat_spectrum(9000, 6, seed=1)
    order = np.random.default_rng(0).permutation(len(rows))
    one, other = PCA.fit(rows), PCA.fit(rows[order])
    assert one.components == pytest.approx(other.components, abs=1e-6)
    assert (np.abs(one.components).max(axis=1) == one.components.max(axis=1)).all()


def test_all_components_keep_distances():
    rows = flat_spectrum(100, 8)
    before = annx.pairwise_distances(rows, rows)
    after = PCA.fit(rows).transform(rows)
    assert annx.pairwise_distances(after, after) == pytest.approx(before, abs=1e-4)
    fewer = PCA.fit(rows, 5)
    after = fewer.transform(rows)
    less = before - annx.pairwise_distances(after, after)
    assert (less >= -1e-4).all()
    # The mean over all pairs, twice the variances that were left out.
    left = PCA.fit(rows).variances[5:].sum()
    assert less.mean() == pytest.approx(2 * left, rel=1e-3)


@given(own.seeds, st.integers(2, 300), own.small_dims, st.integers(1, 17))
def test_whitened_data_has_unit_variance_or_none(seed, n, dim, rank):
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((n, rank)), rng.standard_normal((rank, dim))
    rows = (factors[0] @ factors[1] + 1000).astype(np.float32)
    rows[:, 0] = 7  # constant
    white = PCA.fit(rows, whiten=True)
    assert np.isfinite(white.transform(rows)).all()
    out = white.transform(rows).astype(float)
    # Constant rows leave rounding at the most, which is not blown up.
    kept = white.variances > 0
    assert (out[:, ~kept] == 0).all()
    clear = white.variances > 1e-4 * np.square(rows.astype(float)).sum() / n * 1e-4
    assert np.var(out[:, clear], axis=0) == pytest.approx(1, rel=1e-2)
    assert np.abs(np.mean(out[:, clear], axis=0)).max(initial=0) < 0.1


def test_constant_data_whitens_to_nothing():
    for rows in (np.ones((5, 3)), np.zeros((4, 2)), np.full((1, 2), 3.5)):
        white = PCA.fit(rows, whiten=True)
        assert white.variances.tolist() == [0] * rows.shape[1]
        assert not white.transform(rows).any()
        assert not white.transform_queries(rows[0] + 1).any()


def test_rounding_far_from_the_origin_is_no_direction():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 2)) @ rng.standard_normal((2, 6)) + 1000
    rows = rows.astype(np.float32)
    assert (PCA.fit(rows).variances > 0).tolist() == [True] * 2 + [False] * 4
    assert (reference.PCA.fit(rows).variances > 0).sum() == 2


def test_given_components_are_used_as_they_are():
    pca = PCA([[0.0, 1.0]], [1.0, 2.0], [4.0], whiten=True)
    assert pca.transform([[5.0, 6.0]]).tolist() == [[2.0]]
    assert PCA([[0.0, 1.0]]).transform([[5.0, 6.0]]).tolist() == [[6.0]]


# --- the query-side matrix ------------------------------------------------------------


def test_matrix_applies_to_queries_only():
    form = Bilinear(np.arange(6.0).reshape(3, 2))
    assert (form.query_dim, form.input_dim, form.dim) == (3, 2, 2)
    assert form.transform([[1.0, 2.0]]).tolist() == [[1.0, 2.0]]
    assert form.transform_queries([1.0, 1.0, 0.0]).tolist() == [2.0, 4.0]
    rows, queries = data(200, 7), data(30, 5, seed=1)
    matrix = data(5, 7, seed=2)
    index = annx.TransformedIndex(annx.FlatIndex(7, "ip"), Bilinear(matrix))
    index.add(rows)
    found = index.search(queries, 10)
    scores = queries.astype(float) @ matrix @ rows.T
    best = -np.sort(-scores, axis=1)[:, :10]
    assert found.scores == pytest.approx(best, abs=1e-4)


@given(
    own.seeds,
    st.integers(1, 80),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from((0.0, 1e-3, 1.0)),
)
def test_learned_matrix_is_the_reference_one(seed, n, query_dim, dim, ridge):
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((n, query_dim)).astype(np.float32)
    positives = rng.standard_normal((n, dim)).astype(np.float32)
    native = Bilinear.fit(queries, positives, ridge=ridge).matrix
    twin = reference.Bilinear.fit(queries, positives, ridge=ridge).matrix
    condition = np.linalg.cond(queries.astype(float)) ** 2 if ridge == 0 else 1e4
    assert native == pytest.approx(twin, rel=1e-5, abs=1e-13 * condition + 1e-6)


@given(own.seeds, st.integers(3, 60), st.sampled_from((0.0, 1e-2, 0.5)))
def test_learned_matrix_is_the_best(seed, n, ridge):
    rng = np.random.default_rng(seed)
    queries, positives = rng.standard_normal((n, 3)), rng.standard_normal((n, 2))
    found = Bilinear.fit(queries, positives, ridge=ridge).matrix

    def loss(matrix):
        weight = ridge * np.square(queries).sum() / 3
        error = np.square(queries @ matrix - positives).sum()
        return error + weight * np.square(matrix).sum()

    best = loss(found)
    for _ in range(5):
        assert best <= loss(found + 1e-2 * rng.standard_normal((3, 2))) + 1e-6


def test_learned_matrix_of_dependent_queries_is_finite():
    queries = np.repeat(data(50, 2), 3, axis=1)  # rank 2 of 6
    positives = queries[:, :3] * 2
    for ridge in (0.0, 1e-3):
        form = Bilinear.fit(queries, positives, ridge=ridge)
        assert np.abs(form.matrix).max() < 10
        found = form.transform_queries(queries)
        assert found == pytest.approx(positives, abs=1e-4 if ridge == 0 else 0.1)
    assert not Bilinear.fit(np.zeros((4, 2)), positives[:4]).matrix.any()


def test_learned_matrix_finds_positives():
    rng = np.random.default_rng(0)
    rows, shift = data(2000, 16), rng.standard_normal((24, 16))
    queries = rows @ np.linalg.pinv(shift) + 0.01 * rng.standard_normal((2000, 24))
    form = Bilinear.fit(queries[:1000], rows[:1000])
    index = annx.TransformedIndex(annx.FlatIndex(16), form)
    index.add(rows)
    found = index.search(queries[1000:], 1).ids[:, 0]
    assert (found == np.arange(1000, 2000)).mean() > 0.95


# --- composing ------------------------------------------------------------------------


@given(own.seeds, own.small_dims, st.integers(0, 40))
def test_chain_is_its_parts_in_order(seed, dim, n):
    rng = np.random.default_rng(seed)
    rows = own.make_rows(seed, n, dim)
    parts = (
        Normalise(dim),
        Linear(rng.standard_normal((6, dim))),
        Bilinear(rng.standard_normal((6, 6))),
        Mask(6, [5, 1, 1]),
        Centre([1, 2, 3]),
    )
    chain = Chain(Chain(*parts[:2]), Chain(*parts[2:]))
    assert [repr(part) for part in chain.parts] == [repr(part) for part in parts]
    vectors = queries = rows
    for part in parts:
        vectors, queries = part.transform(vectors), part.transform_queries(queries)
    assert np.array_equal(chain.transform(rows), vectors)
    assert np.array_equal(chain.transform_queries(rows), queries)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Chain(), "steps"),
        (lambda: Chain(Mask(4, [1]), Normalise(2)), "gives 1"),
        (lambda: Chain(Normalise(2), Bilinear([[1.0, 1.0]])), "queries of 1"),
        (lambda: Chain(*[Normalise(2)] * 65), "65 steps"),
        (lambda: Mask(3, [3]), "0 to 2"),
        (lambda: Mask(3, [-1]), "0 to 2"),
        (lambda: Mask(3, [True]), "3"),
        (lambda: Mask(3, [False] * 3), "no dimension"),
        (lambda: Mask(3, [[1]]), "kept"),
        (lambda: PCA.fit(np.ones((4, 3)), 4), "dim"),
        (lambda: PCA.fit(np.ones((0, 3))), "no rows"),
        (lambda: PCA.fit([[np.nan, 1.0]]), "vectors"),
        (lambda: PCA([[1.0]], whiten=True), "variances"),
        (lambda: PCA([[1.0]], variances=[-1.0]), "variances"),
        (lambda: PCA([[1.0]], variances=[1.0, 1.0]), "variances"),
        (lambda: PCA([[1.0]], variances=[1e-300], whiten=True), "variances"),
        (lambda: PCA([[1.0]], mean=[1.0, 2.0]), "mean"),
        (lambda: Centre.fit(np.ones((0, 3))), "no rows"),
        (lambda: Centre([[1.0]]), "mean"),
        (lambda: Centre([np.inf]), "mean"),
        (lambda: Linear([[np.nan]]), "matrix"),
        (lambda: Linear([1.0]), "matrix"),
        (lambda: Bilinear.fit(np.ones((2, 2)), np.ones((3, 2))), "positives"),
        (lambda: Bilinear.fit(np.ones((2, 2)), np.ones((2, 2)), ridge=-1), "ridge"),
        (lambda: Rotation(0), "dim"),
        (lambda: Rotation(3, seed=-1), "seed"),
        (lambda: Normalise(1 << 21), "dim"),
    ],
)
def test_bad_options_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_wrong_types_are_refused():
    for make in (
        lambda: Chain(3),
        lambda: Mask(3, [0.5]),
        lambda: Normalise(2.5),
        lambda: Linear([["a"]]),
        lambda: annx.TransformedIndex(3, Normalise(2)),
        lambda: annx.TransformedIndex(annx.FlatIndex(2), 3),
        lambda: annx.TransformedIndex(
            annx.TransformedIndex(annx.FlatIndex(2), Normalise(2)), Normalise(2)
        ),
    ):
        with pytest.raises(TypeError):
            make()


def test_bad_rows_are_refused():
    linear = Linear(np.full((2, 2), 1e15))
    for bad, match in (
        ([[np.nan, 1.0]], "NaN"),
        ([[np.inf, 1.0]], "infinity"),
        ([[1.0, 2.0, 3.0]], "3 columns"),
        ([[1e10, 1e10]], "transformed"),
        ([[1e18, 1.0]], "transformed"),
    ):
        for call in (linear.transform, linear.transform_queries):
            with pytest.raises(ValueError, match=match):
                call(np.array(bad, np.float32))
        with pytest.raises(ValueError, match=match):
            linear.transform_queries(np.array(bad[0], np.float32))
    with pytest.raises(ValueError, match="dimensions"):
        linear.transform(np.zeros(2, np.float32))


def test_transforms_are_saved(tmp_path):
    rows = data(100, 5)
    pca = PCA.fit(rows, 3, whiten=True)
    for one in (pca, Chain(pca, Normalise(3), Bilinear(np.eye(3)))):
        one.save(tmp_path / "t.annx")
        for again in (
            annx.load(tmp_path / "t.annx"),
            annx.load(tmp_path / "t.annx", mmap=True),
            pickle.loads(pickle.dumps(one)),
        ):
            assert type(again) is type(one)
            assert repr(again) == repr(one)
            assert np.array_equal(again.transform(rows), one.transform(rows))
    again = annx.load(tmp_path / "t.annx").parts[0]
    for name in ("components", "mean", "variances", "scales"):
        assert np.array_equal(getattr(again, name), getattr(pca, name))


# --- before an index ------------------------------------------------------------------

FAMILIES = {
    "flat": lambda: annx.FlatIndex(4),
    "flat-float16": lambda: annx.FlatIndex(4, "ip", "float16"),
    "graph": lambda: annx.GraphIndex(4, "cosine", degree=8),
    "ivf": lambda: annx.IVFIndex(4, n_lists=3),
    "kd": lambda: annx.KDForestIndex(4),
    "lsh": lambda: annx.LSHIndex(4),
    "pq": lambda: annx.PQFlatIndex(4, n_segments=2, n_bits=4),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_index_is_the_family_behind_the_transform(family, tmp_path):
    rows, queries = data(300, 9), data(20, 6, seed=3)
    chain = Chain(Bilinear(data(6, 9, seed=4)), PCA.fit(rows, 4, whiten=True))
    index, inner = annx.TransformedIndex(family(), chain), family()
    if hasattr(inner, "train"):
        assert index.train(rows) is index
        inner.train(chain.transform(rows))
    ids = np.arange(300)[::-1] * 2 + 5
    assert np.array_equal(index.add(rows, ids), ids)
    inner.add(chain.transform(rows), ids)
    if hasattr(inner, "remove"):
        index.remove(ids[:10])
        inner.remove(ids[:10])
        index.upsert(rows[:2] + 1, ids[20:22])
        inner.upsert(chain.transform(rows[:2] + 1), ids[20:22])
    held = inner.ids
    assert len(index) == len(inner)
    assert np.array_equal(index.ids, held)
    assert held[0] in index
    assert np.array_equal(index.get(held[:7]), inner.get(held[:7]))
    assert (index.dim, index.query_dim) == (9, 6)
    assert (index.metric, index.dtype) == (inner.metric, inner.dtype)
    assert repr(index).startswith("TransformedIndex(dim=9")
    wanted = chain.transform_queries(queries)
    chosen = index.id_set(np.arange(len(index)) % 2 == 0)

    def check(some):
        for options in ({}, {"filter": chosen}, {"threads": 2}):
            ours, theirs = (
                some.search(queries, 5, **options),
                inner.search(wanted, 5, **options),
            )
            assert np.array_equal(ours.ids, theirs.ids)
            assert np.array_equal(ours.distances, theirs.distances)
        one = some.search(queries[3], 5)
        assert np.array_equal(one.ids, inner.search(wanted[3], 5).ids)
        radius = float(np.median(inner.search(wanted, 5).distances))
        for left, right in zip(
            some.search_radius(queries, radius),
            inner.search_radius(wanted, radius),
            strict=True,
        ):
            assert np.array_equal(left, right)

    check(index)
    if hasattr(inner, "count_radius"):
        assert np.array_equal(
            index.count_radius(queries, 1.5), inner.count_radius(wanted, 1.5)
        )
    index.save(tmp_path / "both.annx")
    for again in (
        annx.load(tmp_path / "both.annx"),
        annx.load(tmp_path / "both.annx", mmap=True, verify="structure"),
        pickle.loads(pickle.dumps(index)),
    ):
        assert type(again.index) is type(inner)
        check(again)
    memory = index.memory_usage()
    assert memory["total"] == inner.memory_usage()["total"] + memory["transform"]
    assert memory["transform"] > 0
    stats = index.stats()
    assert stats["family"] == "TransformedIndex"
    assert stats["index"]["family"] == type(inner).__name__
    assert "PCA" in stats["transform"]


def test_equal_query_is_at_distance_zero():
    rows = data(300, 100)
    index = annx.TransformedIndex(annx.FlatIndex(7), PCA.fit(rows, 7, whiten=True))
    index.add(rows)
    for i in range(0, 300, 17):
        found = index.search(rows[i], 1)
        assert (int(found.ids[0]), float(found.distances[0])) == (i, 0.0)


def test_sample_of_queries_goes_through_the_query_side():
    rng = np.random.default_rng(5)
    vectors = data(3000, 12, seed=1)
    matrix = rng.standard_normal((7, 12))  # queries have 7 dimensions
    asked = rng.standard_normal((400, 7)).astype(np.float32) * 3
    through = annx.TransformedIndex(
        annx.GraphIndex(12, storage="plain"), Bilinear(matrix)
    )
    assert through.add(vectors, queries=asked[:300], threads=1)[-1] == 2999
    by_hand = annx.GraphIndex(12, storage="plain")
    sample = through.transform.transform_queries(asked[:300])
    by_hand.add(vectors, queries=sample, threads=1)
    for id in (0, 17, 2999):
        assert np.array_equal(through.index.neighbours(id), by_hand.neighbours(id))
    plain = annx.GraphIndex(12, storage="plain")
    plain.add(vectors, threads=1)
    assert through.index.stats()["links"] > plain.stats()["links"]
    twin = reference.TransformedIndex(
        annx.reference.GraphIndex(12), reference.Bilinear(matrix)
    )
    twin.add(vectors[:200], queries=asked[:20])
    assert twin.search(asked[20:23], 5)[0].shape == (3, 5)

    before = len(through)
    with pytest.raises(ValueError, match="queries"):
        through.add(vectors, queries=asked[:, :5])
    assert len(through) == before
    flat = annx.TransformedIndex(annx.FlatIndex(12), Bilinear(matrix))
    with pytest.raises(TypeError, match=r"queries .* FlatIndex"):
        flat.add(vectors, queries=asked)
    assert len(flat) == 0


def test_bands_go_through_a_transform():
    rows = data(50, 6)
    index = annx.TransformedIndex(annx.FlatIndex(3), Mask(6, [0, 2, 4]))
    index.add(rows)
    band = annx.search_band(index, rows[:5], 1, 4, exclude=[[i] for i in range(5)])
    plain = annx.FlatIndex.build(np.ascontiguousarray(rows[:, ::2]))
    expected = annx.search_band(
        plain, rows[:5, ::2], 1, 4, exclude=[[i] for i in range(5)]
    )
    assert np.array_equal(band.ids, expected.ids)


def test_index_that_does_not_fit_is_refused():
    for index, match in (
        (annx.FlatIndex(3), "3 dimensions"),
        (annx.FlatIndex(2, dtype="int8"), "int8"),
        (annx.FlatIndex(2, "hamming", "bits"), "bits"),
    ):
        with pytest.raises(ValueError, match=match):
            annx.TransformedIndex(index, Normalise(2))


def test_index_is_unchanged_by_bad_vectors():
    index = annx.TransformedIndex(annx.FlatIndex(1), Linear([[1e15, 0.0]]))
    index.add([[1e-30, 0.0]])
    for bad in ([[np.nan, 0.0]], [[1e10, 0.0]], [[1.0]]):
        with pytest.raises(ValueError, match="vectors"):
            index.add(bad)
    assert len(index) == 1


def test_file_of_another_object_behind_a_transform_is_refused(tmp_path):
    from annx.reference import file

    index = annx.TransformedIndex(annx.FlatIndex(2), Normalise(2))
    index.add([[1.0, 2.0]])
    path = tmp_path / "a"
    index.save(path)
    saved = file.decode(path.read_bytes())
    for kind in ("transformed", "kmeans", "graph", "nothing"):
        path.write_bytes(
            file.encode(saved.kind, {**saved.meta, "index": kind}, saved.sections)
        )
        with pytest.raises(annx.FormatError):
            annx.load(path)
