# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from annx import _core
from annx.reference.random import Random

WORDS = st.integers(0, 2**64 - 1)


@given(WORDS, WORDS, st.lists(WORDS, min_size=1, max_size=20))
def test_random_bits_equal_native(seed, stream, positions):
    at = np.array(positions, np.uint64)
    native = _core.random_bits(seed, stream, at)
    assert np.array_equal(Random(seed, stream).bits(at), native)


def test_random_unit_is_uniform():
    draws = Random(3).unit(np.arange(100_000))
    assert 0 <= draws.min() < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.02


def test_random_below_stays_below_and_streams_differ():
    at = np.arange(10_000)
    draws = Random(3, 1).below(at, 7)
    assert set(draws.tolist()) == set(range(7))
    assert (draws == Random(3, 2).below(at, 7)).mean() < 0.2
