# SPDX-License-Identifier: Apache-2.0
"""What tests of inverted files share: data, kinds of index, recall."""

import numpy as np

import annx

METRICS = ("l2", "ip", "cosine")
CODECS = ("rabitq", "pq4")
ALL_CODECS = (*CODECS, "flat")


def data(n=1500, dim=20, seed=0):
    """Rows in clumps, away from the origin, as inverted files meet them."""
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(7).standard_normal((12, dim)) * 2 + 1
    return (middles[rng.integers(0, 12, n)] + rng.standard_normal((n, dim))).astype(
        np.float32
    )


def built(metric="l2", n=1500, dim=20, **options):
    x = data(n, dim)
    options = {"n_lists": 12, "n_iterations": 4, **options}
    return annx.IVFIndex.build(x, metric, **options), x


def recall(found, truth):
    hits = [len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)]
    return np.mean(hits) / truth.shape[1]


ROTATED = {"codec": "pq4", "rotation": "random"}
LEARNT = {"codec": "pq4", "rotation": "opq"}
# Kinds of codes.
CODES = (
    *({"codec": c} for c in (*CODECS, "pq8")),
    ROTATED,
    LEARNT,
    {"codec": "rabitq", "residual": False},
    {"codec": "pq8", "rotation": "random", "residual": False},
)


LONGER = (
    {"storage": "sq8"},
    {"storage": "sq4", "codec": "pq4"},
    *({"storage": "codes", "bits": bits} for bits in range(2, 9)),
)
