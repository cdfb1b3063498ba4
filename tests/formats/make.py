# SPDX-License-Identifier: Apache-2.0
"""Write a small file of every case of `saved_kinds`, with its answers beside it.

    python tests/formats/make.py

Files go to `v<format version>/`. One that exists is left alone: what was released once
stays for ever, and `test_formats.py` loads it with every later annx. Only a file that
was never released may be deleted and made again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from annx.reference.file import VERSION  # noqa: E402
from saved_kinds import CASES  # noqa: E402

SEED = 1
SIZE = 20


def main() -> None:
    """Write what is missing."""
    folder = HERE / f"v{VERSION}"
    folder.mkdir(exist_ok=True)
    for name, case in CASES.items():
        path = folder / f"{name}.annx"
        if path.exists():
            continue
        thing = case.make(SEED, SIZE)
        thing.save(path)
        answers = {"kind": case.kind, "answers": case.ask(thing)}
        path.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")
        sys.stdout.write(f"wrote {path.relative_to(HERE)}\n")


if __name__ == "__main__":
    main()
