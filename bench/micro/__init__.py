# SPDX-License-Identifier: Apache-2.0
"""Kernels beside those of other packages, and beside what the machine can do."""
