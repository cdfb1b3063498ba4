# SPDX-License-Identifier: Apache-2.0
"""Comparison of nearest-neighbour libraries: data sets, adapters, protocol, report."""
