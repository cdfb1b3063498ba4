# SPDX-License-Identifier: Apache-2.0
"""Product quantization against its twin and against the decoded vectors."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from annx import reference

METRICS = st.sampled_from(("l2", "ip", "cosine"))


def distance(metric, a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "l2":
        return ((a[:, None] - b[None]) ** 2).sum(-1)
    products = a @ b.T
    if metric == "ip":
        return -products
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return 1 - np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), 0)


@st.composite
def quantizers(draw, kinds=own.kinds):
    """A trained quantizer, its twin with the same codebooks, and the vectors."""
    dim = draw(own.dims)
    bits = draw(st.sampled_from((4, 4, 8)))
    n = (1 << bits) + draw(st.integers(0, 60))
    x = own.make_rows(draw(own.seeds), n, dim, kind=draw(kinds))
    segments = draw(st.integers(1, min(dim, 9)))
    options = {
        "n_bits": bits,
        "metric": draw(METRICS),
        "n_iterations": 3,
        "seed": draw(own.seeds),
    }
    native = annx.ProductQuantizer(dim, segments, **options).train(x)
    twin = reference.ProductQuantizer(dim, segments, **options)
    twin._books = [native.codebook(i) for i in range(segments)]
    return native, twin, x


def scale_of(metric, x):
    if metric == "cosine":
        return 1.0
    return float((x.astype(np.float64) ** 2).sum(1).max()) * 4 + 1e-30


@given(quantizers())
def test_codes_tables_and_distances_equal_reference(case):
    native, twin, x = case
    codes = native.encode(x)
    assert codes.shape == (len(x), twin.code_bytes)
    assert native.starts.tolist() == twin.starts.tolist()
    assert np.array_equal(native.decode(codes), twin.decode(codes))
    scale = scale_of(native.metric, x)
    # Where the codes differ, the two centroids must be as near, within the bound.
    ours, theirs = native.decode(codes), twin.decode(twin.encode(x))
    rows = reference.codec._unit(x) if native.metric == "cosine" else x
    errors = [((rows.astype(np.float64) - d) ** 2).sum(1) for d in (ours, theirs)]
    assert np.allclose(errors[0], errors[1], rtol=1e-5, atol=1e-6 * scale)
    pairs = (
        (native.symmetric_tables(), twin.symmetric_tables()),
        (native.asymmetric_tables(x[:5]), twin.asymmetric_tables(x[:5])),
        (
            native.asymmetric_distances(x[:5], codes),
            twin.asymmetric_distances(x[:5], codes),
        ),
        (
            native.symmetric_distances(codes[:5], codes),
            twin.symmetric_distances(codes[:5], codes),
        ),
    )
    for a, b in pairs:
        assert np.allclose(a, b, rtol=1e-5, atol=2e-6 * scale)


@given(quantizers(kinds=st.sampled_from(("integer", "ties"))))
def test_codes_of_whole_numbers_equal_reference_exactly(case):
    native, twin, x = case
    if native.metric == "cosine":
        return
    # Whole codebooks, so that every distance is exact.
    books = [np.round(b) for b in twin._books]
    twin._books = books
    codes = twin.encode(x)
    decoded = twin.decode(codes)
    assert np.array_equal(
        twin.asymmetric_distances(x[:4], codes), distance(native.metric, x[:4], decoded)
    )
    for i, (start, stop) in enumerate(pairwise(native.starts)):
        part = np.ascontiguousarray(x[:, start:stop])
        model = annx.KMeans(len(books[i]), init=books[i], n_iterations=0).train(
            np.concatenate([part, books[i]])
        )
        assert np.array_equal(
            model.assign(part)[0], reference.codec.nearest(part, books[i])[0]
        )


@given(quantizers())
def test_distances_are_those_of_decoded_vectors(case):
    native, _, x = case
    codes = native.encode(x)
    decoded = native.decode(codes)
    scale = scale_of(native.metric, x)
    sdc = native.symmetric_distances(codes[:7], codes)
    assert np.allclose(
        sdc, distance(native.metric, decoded[:7], decoded), rtol=1e-4, atol=2e-6 * scale
    )
    adc = native.asymmetric_distances(x[:7], codes)
    assert np.allclose(
        adc, distance(native.metric, x[:7], decoded), rtol=1e-4, atol=2e-6 * scale
    )


@given(quantizers())
def test_error_of_the_whole_is_the_sum_of_the_segments(case):
    native, _, x = case
    rows = reference.codec._unit(x) if native.metric == "cosine" else x
    residual = (rows.astype(np.float64) - native.decode(native.encode(x))) ** 2
    parts = np.add.reduceat(residual, native.starts[:-1], axis=1)
    assert np.allclose(residual.sum(1), parts.sum(1))
    if native.metric == "l2":
        tables = native.asymmetric_tables(x)
        assert np.allclose(
            tables.min(2), parts, rtol=1e-4, atol=2e-6 * scale_of("l2", x)
        )


@given(quantizers())
def test_encoding_a_decoded_vector_gives_its_code(case):
    native, _, x = case
    if native.metric == "cosine":
        return
    codes = native.encode(x)
    decoded = native.decode(codes)
    assert np.array_equal(native.decode(native.encode(decoded)), decoded)
