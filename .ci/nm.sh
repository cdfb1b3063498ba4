#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: .ci/nm.sh BUILD_FOLDER. Looks at the object of every instruction set there: it
# may define no weak symbol (an inline function compiled for AVX-512 under a shared name
# may be the copy that the linker keeps for every processor), may export only its
# table(), and may call nothing but the C library's memory and math functions.
set -euo pipefail
build=$1
mapfile -t objects < <(find "$build" -name 'isa_*.cpp.o' | sort)
if ((${#objects[@]} == 0)); then
  echo "no isa_*.cpp.o below $build" >&2
  exit 1
fi
status=0
for object in "${objects[@]}"; do
  isa=$(basename "$object" .cpp.o)
  isa=${isa#isa_}
  # Columns of nm: [address] type name. W and V are weak, u unique across the process.
  weak=$(nm -C "$object" | awk '$(NF > 2 && $1 ~ /^[0-9a-f]+$/ ? 2 : 1) ~ /^[WwVvu]$/' |
    grep -v '_GLOBAL_OFFSET_TABLE_' || true)
  exported=$(nm -C --defined-only --extern-only "$object" | cut -d' ' -f3-)
  called=$(nm -C --undefined-only "$object" | awk '{print $2}' |
    grep -vxE 'mem(cpy|set|move|cmp)|fmaf?|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail' || true)
  if [[ -n $weak ]]; then
    echo "$isa: weak symbols:"$'\n'"$weak" >&2
    status=1
  fi
  if [[ $exported != "annx::kernels::$isa::table()" ]]; then
    echo "$isa: exports more or less than its table:"$'\n'"$exported" >&2
    status=1
  fi
  if [[ -n $called ]]; then
    echo "$isa: calls out:"$'\n'"$called" >&2
    status=1
  fi
  echo "$isa: $(nm --defined-only "$object" | wc -l) symbols, exports table() alone"
done
exit $status
