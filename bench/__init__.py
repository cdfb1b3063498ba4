# SPDX-License-Identifier: Apache-2.0
"""Measurements of annx beside other libraries; run it with ``python -m bench``."""
