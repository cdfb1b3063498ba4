# SPDX-License-Identifier: Apache-2.0
"""The walk over link codes: native against reference.

Vectors are small integers, whose distances are exact however they are computed; the
walk is then the same step by step, given the same estimates (`tests/test_links.py`
holds those to the reference's).
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from annx.reference import LinkCodec
from annx.reference.coded_search import choose_starts, coded_beam_search

CASES = [
    ("l2", "float32", 20, "fast"),
    ("l2", "float32", 70, "float32"),
    ("l2", "uint8", 33, "fast"),
    ("l2", "int8", 300, "fast"),
    ("ip", "int8", 40, "fast"),
]
KINDS = ("near", "apart", "repeated")
N = 2300


def integers(seed, n, dim, kind):
    """Rows on a bent surface of few dimensions, rounded; 0 to 100."""
    mix = np.random.default_rng(dim).standard_normal((6, dim))
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, 6))
    if kind == "apart":
        latent[::3] += 4
    if kind == "repeated":
        latent = latent[rng.integers(n // 2, size=n)]
    rows = np.tanh(latent @ mix / 2) * 30 + 3 * rng.standard_normal((n, dim)) + 50
    return np.clip(np.round(rows), 0, 100)


@functools.cache
def make(metric, dtype, dim, storage, kind):
    rows = integers(0, N, dim, kind)
    index = annx.GraphIndex(
        dim, metric, dtype, storage=storage, degree=16, ef_construction=40
    )
    index.add(rows[:-9])
    index.add(rows[-9:])
    return index, rows


def keys_of(rows, query, metric):
    products = rows @ query
    if metric == "ip":
        return -products
    return np.square(rows).sum(axis=1) - 2 * products + np.square(query).sum()


def records(index):
    return [index._native.link_codes(slot)[0] for slot in range(len(index))]


@given(st.sampled_from(CASES), st.sampled_from(KINDS), own.seeds, st.integers(1, 90))
def test_walk_equals_the_reference_one(case, kind, seed, ef):
    metric, dtype, dim, _ = case
    index, rows = make(*case, kind)
    native, links = index._native, records(index)
    query = integers(1, 1000, dim, kind)[seed % 1000]
    stored = query.astype(dtype)[None]
    keys = keys_of(rows, query, metric)

    def estimate(slot, key):
        found, estimates = native.estimate_links(stored, slot)
        assert found == key
        return estimates

    starts = choose_starts(
        native.link_codes(-1)[0], native.estimate_links(stored, -1)[1]
    )
    k = 1 + seed % 12
    width = max(ef, k)
    growth = index.stats()["growth"]
    assert (growth > 0) == (metric != "ip")
    rule = {}
    if growth > 0:
        rule = {"k": k, "factor": np.float32((width / k) ** (1 / growth))}
        width *= 2
    keep = min(width, k + max(k, 8))
    expected = coded_beam_search(links, keys, estimate, starts, width, keep, **rule)
    expected = expected[:k]
    found = index.search(stored, k, ef=ef)
    assert found.distances[0, : len(expected)].tolist() == [key for key, _ in expected]
    assert found.ids[0, : len(expected)].tolist() == [slot for _, slot in expected]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_walk_by_the_reference_codes_finds_as_much(case):
    """All of it in NumPy, from the same graph: axes, codes, estimates and walk."""
    metric, dtype, dim, _ = case
    index, rows = make(*case, "near")
    codec = LinkCodec(**index._native.link_codec())
    links = records(index)
    roots = index._native.link_codes(-1)[0]
    root_codes = codec.encode(codec.mean, rows[roots])
    shared, right = [], []
    codes = functools.cache(lambda slot: codec.encode(rows[slot], rows[links[slot]]))
    for query in integers(2, 12, dim, "near"):
        keys = keys_of(rows, query, metric)

        def estimate(slot, key, query=query):
            return codec.estimate(query, key, *codes(slot))

        starts = choose_starts(roots, codec.estimate(query, 0.0, *root_codes))
        found = coded_beam_search(links, keys, estimate, starts, 40, 10)
        best = np.sort(keys)[9]
        right.append(np.mean([key <= best for key, _ in found]))
        ids = index.search(query.astype(dtype)[None], 10, ef=40).ids[0]
        shared.append(np.mean(keys[ids] <= best))
    assert np.mean(right) > 0.9
    assert np.mean(shared) > 0.9
    assert abs(np.mean(right) - np.mean(shared)) < 0.06


def test_links_without_codes_are_asked_for_their_keys():
    keys = np.array([9.0, 5.0, 1.0, 0.0])
    links = [[1, 2], [0], [3], [2]]
    asked = []

    def estimate(slot, key):
        asked.append((slot, key))
        return None if slot == 2 else [7.0, np.nan][: len(links[slot])]

    found = coded_beam_search(links, keys, estimate, [0], 3, 3)
    # 2 by its key before 1 by its estimate; 3 only through 2.
    assert [slot for slot, _ in asked] == [0, 2, 1, 3]
    assert found == [(0.0, 3), (1.0, 2), (5.0, 1)]


def test_starts_are_the_nearest_roots():
    assert choose_starts([], []) == [0]
    assert choose_starts([5], [1.0]) == [5]
    assert choose_starts([5, 6, 7], [2.0, 2.0, 1.0]) == [7, 5]


def test_slot_that_no_list_took_may_come_again():
    keys = np.array([5.0, 1.0, 0.0])
    links, estimates = [[1, 2], [2], []], [[1.0, 9.0], [0.5], []]
    found = coded_beam_search(links, keys, lambda slot, key: estimates[slot], [0], 2, 3)
    assert found == [(0.0, 2), (1.0, 1), (5.0, 0)]


def test_walk_goes_no_further_than_its_reach():
    # In a line away from the query; 2 is the best, 3 and 4 ever further.
    keys = np.array([9.0, 4.0, 1.0, 2.0, 3.0])
    links = [[1], [2], [3], [4], []]

    def walk(**rule):
        asked = []

        def estimate(slot, key):
            asked.append(slot)
            return keys[links[slot]]

        coded_beam_search(links, keys, estimate, [0], 5, 5, **rule)
        return asked

    assert walk() == [0, 1, 2, 3, 4]
    assert walk(k=1, factor=2.5) == [0, 1, 2, 3]
    assert walk(k=1, factor=1.5) == [0, 1, 2]
    assert walk(k=3, factor=1.5) == [0, 1, 2, 3, 4]
