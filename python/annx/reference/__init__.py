# SPDX-License-Identifier: Apache-2.0
"""Every algorithm of annx again, in plain NumPy, to read and to test against."""
