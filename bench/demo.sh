#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds annx in a fresh virtual environment, and compares it with faiss and hnswlib on
# the real data that ships in this repository: a table, and a plot.
#
#   bash bench/demo.sh [further options of `python -m bench quick`]
#
# PYTHON=python3.12 chooses the interpreter; ANNX_DEMO_VENV another place for the
# environment (.venv-demo).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-python3}"
venv="${ANNX_DEMO_VENV:-.venv-demo}"
started=$SECONDS

say() { printf '\n== [%3d s] %s\n' "$((SECONDS - started))" "$*"; }

"$python" - <<'PY' || { echo "annx needs Python 3.10 or newer (set PYTHON)" >&2; exit 1; }
import sys
sys.exit(sys.version_info < (3, 10))
PY

say "a fresh virtual environment in $venv"
rm -rf "$venv"
"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
pip install --upgrade pip

say "building and installing annx (needs a C++20 compiler)"
pip install .

# The peers are welcome but not needed: a missing one is named, and the run goes on.
optional() {
  say "installing $*"
  pip install "$@" || echo "could not install $*: the comparison goes on without it"
}
optional matplotlib
optional faiss-cpu
optional hnswlib

# An unset PYTHONPATH keeps a development build from standing in for the installed one.
unset PYTHONPATH
say "building indexes and searching"
"$venv/bin/python" -m bench quick \
  --algorithms annx,faiss,hnswlib "$@"
say "done"
