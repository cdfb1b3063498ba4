# SPDX-License-Identifier: Apache-2.0
"""Hypothesis profiles, and a header line that names the instruction set under test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

import annx
from annx import _core

# No deadlines: a shared machine makes any time limit fail by chance. `ci` draws the
# same examples on every run, so that a red run can be repeated.
settings.register_profile("dev", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=60,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_report_header() -> str:
    """Say what is being tested."""
    return f"annx {annx.__version__}, kernels: {_core.isa()} of {_core.isas()}"
