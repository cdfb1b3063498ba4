# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import annx
from annx.reference import flat as reference
from strategies import (
    bit_metrics,
    dims,
    kinds,
    ks,
    lay_out,
    layouts,
    make_bits,
    make_rows,
    seeds,
    vector_dtypes,
    vector_metrics,
)

threads = st.integers(1, 4)


def same_to(tolerance, found, truth, scale):
    return (np.abs(found - truth) <= tolerance * scale).all()


@given(
    seed=seeds,
    n=st.integers(0, 200),
    dim=dims,
    k=ks,
    kind=kinds,
    dtype=vector_dtypes,
    metric=vector_metrics,
    layout=layouts,
    threads=threads,
)
def test_search_equals_reference(seed, n, dim, k, kind, dtype, metric, layout, threads):
    x = make_rows(seed, n, dim, kind=kind, dtype=dtype)
    q = make_rows(seed + 1, 6, dim, kind=kind, dtype=dtype)
    if dtype in ("float16", "bfloat16"):
        q = q.astype(np.float32)
    index = annx.FlatIndex(dim, metric, dtype)
    index.add(lay_out(x, layout))
    ids, distances = index.search(lay_out(q, layout), k, threads=threads)
    wide_q, wide_x = q.astype(float), x.astype(float)
    truth = reference.pairwise_distances(wide_q, wide_x, metric=metric)
    m = min(k, n)
    assert (ids[:, m:] == -1).all()
    expected = np.sort(truth, axis=1)[:, :m]
    chosen = np.take_along_axis(truth, ids[:, :m], axis=1)
    scale = np.abs(expected) + 1e-8
    if metric == "ip":
        reach = np.abs(wide_q) @ np.abs(wide_x).T
        scale = scale + np.take_along_axis(reach, ids[:, :m], axis=1)
        scale = np.maximum(scale, reach.max(axis=1, initial=0)[:, None])
    assert same_to(1e-5, chosen, expected, scale)
    assert same_to(1e-5, distances[:, :m], chosen, scale)
    if kind in ("integer", "ties", "duplicates") and metric in ("l2", "ip", "l1"):
        exact = dtype in ("int8", "uint8") or kind in ("integer", "ties")
        if exact:
            truth_ids, _ = reference.exact_search(wide_q, wide_x, k, metric=metric)
            np.testing.assert_array_equal(ids, truth_ids)


@given(seed=seeds, n=st.integers(1, 300), dim=st.integers(1, 40), metric=vector_metrics)
def test_search_does_not_depend_on_order_threads_or_batch(seed, n, dim, metric):
    x, q = make_rows(seed, n, dim, kind="ties"), make_rows(seed + 1, 9, dim)
    order = np.random.default_rng(seed).permutation(n)
    plain, mixed = annx.FlatIndex(dim, metric), annx.FlatIndex(dim, metric)
    plain.add(x)
    mixed.add(x[order], order)
    found = plain.search(q, 7, threads=1)
    for other in (
        plain.search(q, 7, threads=3),
        mixed.search(q, 7, threads=2),
        mixed.search(q, 7, threads=1, filter=np.arange(n)),
    ):
        np.testing.assert_array_equal(found.ids, other.ids)
        np.testing.assert_array_equal(found.distances, other.distances)
    for i in range(3):
        one = plain.search(q[i], 7, threads=2)
        np.testing.assert_array_equal(one.ids, found.ids[i])
        np.testing.assert_array_equal(one.distances, found.distances[i])


@given(
    seed=seeds, n=st.integers(0, 120), dim=st.integers(1, 300), metric=bit_metrics, k=ks
)
def test_bits_equal_reference(seed, n, dim, metric, k):
    x, q = (
        make_bits(seed, n, dim, density=0.3),
        make_bits(seed + 1, 5, dim, density=0.3),
    )
    index = annx.FlatIndex(dim, metric, "bits")
    index.add(x)
    ids, distances = index.search(q, k)
    wide = [np.unpackbits(a, axis=1, count=dim, bitorder="little") for a in (q, x)]
    truth_ids, truth = reference.exact_search(*wide, k, metric=metric)
    np.testing.assert_array_equal(ids, truth_ids)
    np.testing.assert_allclose(distances, truth, rtol=1e-6)


class FlatChanges(RuleBasedStateMachine):
    """Adding, replacing, removing and asking, beside the reference."""

    def __init__(self):
        super().__init__()
        self.index = annx.FlatIndex(3, "cosine")
        self.twin = reference.FlatIndex(3, "cosine")

    @rule(seed=seeds, n=st.integers(0, 5))
    def add(self, seed, n):
        rows = make_rows(seed, n, 3)
        np.testing.assert_array_equal(self.index.add(rows), self.twin.add(rows))

    @rule(seed=seeds, ids=st.lists(st.integers(0, 30), unique=True, max_size=5))
    def upsert(self, seed, ids):
        rows = make_rows(seed, len(ids), 3)
        self.index.upsert(rows, ids)
        self.twin.upsert(rows, ids)

    @rule(data=st.data())
    def remove(self, data):
        held = sorted(self.twin.ids.tolist())
        if not held:
            return
        ids = data.draw(st.lists(st.sampled_from(held), unique=True))
        self.index.remove(ids)
        self.twin.remove(ids)

    @rule(seed=seeds, data=st.data())
    def search(self, seed, data):
        held = self.twin.ids.tolist()
        queries = make_rows(seed, 5, 3)
        chosen = data.draw(st.none() | st.lists(st.integers(0, 40)))
        found = self.index.search(queries, 4, filter=chosen)
        _, truth = self.twin.search(queries, 4, filter=chosen)
        np.testing.assert_allclose(found.distances, truth, rtol=1e-5, atol=1e-9)
        assert set(found.ids.ravel().tolist()) <= {-1, *held}

    @invariant()
    def holds_the_same(self):
        ids = np.sort(self.twin.ids)
        np.testing.assert_array_equal(np.sort(self.index.ids), ids)
        assert len(self.index) == len(self.twin)
        if len(ids):
            np.testing.assert_array_equal(self.index.get(ids), self.twin.get(ids))


TestFlatChanges = FlatChanges.TestCase
TestFlatChanges.settings = settings(max_examples=15, stateful_step_count=25)
