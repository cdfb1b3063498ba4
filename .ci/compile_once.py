# SPDX-License-Identifier: Apache-2.0
"""Compile a unit once, where two trees are built that should be the same.

A compiler launcher, with absolute paths:
`CMAKE_CXX_COMPILER_LAUNCHER="python3;.ci/compile_once.py;STORE;TREE"`. It keeps every
object in STORE, with its command and the digest of every file that the compiler read.
A later command that is the same but for where the tree, the build and pip's own
environment lie, and whose every file is there and the same, takes that object; any
other runs. So the wheel of an unpacked source distribution takes seconds where the
distribution holds what the clone holds, and the compiler where it does not.
`STORE/counts.txt` gets a line a unit: compiled or taken.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path


def digest(path: str) -> str | None:
    """Return a file's digest, or None where there is no such file."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def main(store: Path, tree: str, command: list[str]) -> int:
    """Run one compiler command, or take what it once made; return the exit status."""
    if "-c" not in command or "-MF" not in command:
        return subprocess.run(command, check=False).returncode
    store.mkdir(parents=True, exist_ok=True)
    output = Path(command[command.index("-o") + 1])
    read = Path(command[command.index("-MF") + 1])

    places = {"@tree@": tree, "@build@": str(Path.cwd())}
    if pip := re.search(r"(/[^=\n]*)?/pip-build-env-[^/\n]+", "\n".join(command)):
        places["@pip@"] = pip[0]

    def general(text: str) -> str:
        for name, place in places.items():
            text = re.sub(rf"{re.escape(place)}(?![^/\s])", name, text)
        return text

    def special(text: str) -> str:
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    key = hashlib.sha256(general("\n".join(command)).encode()).hexdigest()
    kept = store / key
    try:
        record = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        record = None
    if record and all(digest(special(path)) == was for path, was in record["files"]):
        shutil.copyfile(kept, output)
        read.write_text(special(record["read"]), encoding="utf-8")
        done = "taken"
    else:
        if status := subprocess.run(command, check=False).returncode:
            return status
        text = general(read.read_text(encoding="utf-8"))
        paths = text.partition(":")[2].replace("\\\n", " ").split()
        files = [(path, digest(special(path))) for path in paths]
        # A path that is not understood here (one with a space) is never taken again.
        if all(was for _, was in files):
            shutil.copyfile(output, kept)
            content = json.dumps({"files": files, "read": text})
            kept.with_suffix(".json").write_text(content, encoding="utf-8")
        done = "compiled"
    with (store / "counts.txt").open("a", encoding="utf-8") as file:
        file.write(f"{done} {output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
