# SPDX-License-Identifier: Apache-2.0
"""Exceptions that are not built into Python."""

from __future__ import annotations

__all__ = ["FormatError", "NotCalibratedError", "NotTrainedError"]


class NotTrainedError(RuntimeError):
    """A quantizer or index was used before `train`."""


class NotCalibratedError(RuntimeError):
    """`recall=` was given to an index that was not calibrated."""


class FormatError(ValueError):
    """A file is damaged, truncated, foreign, or of a newer format.

    The message names the file and the section.
    """
