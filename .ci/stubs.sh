#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes python/annx/_core.pyi from the compiled module that $PYTHON (default: python)
# imports, or with --check compares the two and fails if they differ.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

(cd "$out" && "$python" -m pybind11_stubgen annx._core -o "$out" --exit-code >/dev/null)
fresh=$out/_core.pyi
{
  echo "# SPDX-License-Identifier: Apache-2.0"
  echo "# Written by .ci/stubs.sh; do not edit."
  # The version is stated in pyproject.toml and would be stale here.
  # pybind11 takes bytes for a std::string as well, which paths outside UTF-8 need.
  sed -E -e "s/^__version__: str = .*/__version__: str/" \
    -e "s/\bpath: str([,)])/path: str | bytes\1/" "$out/annx/_core.pyi"
} >"$fresh"

if [[ ${1:-} == --check ]]; then
  if ! diff -u "$root/python/annx/_core.pyi" "$fresh"; then
    echo "python/annx/_core.pyi is stale: run .ci/stubs.sh" >&2
    exit 1
  fi
else
  cp "$fresh" "$root/python/annx/_core.pyi"
fi
