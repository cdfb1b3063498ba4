# SPDX-License-Identifier: Apache-2.0
"""Files written by every released format version load and answer as they did then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import annx
from annx.reference import file as reference
from saved_kinds import CASES

FOLDER = Path(__file__).resolve().parent / "formats"
FILES = sorted(FOLDER.glob("v*/*.annx"))


def leaves(value: Any, kind: type) -> list[Any]:
    """The words (or, for float, the numbers) in nested lists and dictionaries."""
    if isinstance(value, dict):
        return [x for key in sorted(value) for x in leaves(value[key], kind)]
    if isinstance(value, list):
        return [x for item in value for x in leaves(item, kind)]
    if isinstance(value, str):
        return [value] if kind is str else []
    return [] if kind is str else [float(value)]


def test_every_case_has_a_file() -> None:
    names = {path.stem for path in FILES if path.parent.name == f"v{reference.VERSION}"}
    assert names == set(CASES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
@pytest.mark.parametrize("mmap", [False, True])
def test_old_file_gives_old_answers(path: Path, mmap: bool) -> None:
    case = CASES[path.stem]
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert expected["kind"] == case.kind
    answers = case.ask(annx.load(path, mmap=mmap))
    old = expected["answers"]
    assert leaves(answers, str) == leaves(old, str)
    # Exact but for what an instruction set may round in another way.
    assert leaves(answers, float) == pytest.approx(
        leaves(old, float), rel=1e-5, abs=1e-6
    )
