#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: .ci/emulate_avx512.sh NATIVE_TESTS [KERNEL]. Runs the kernel tests of a
# statically linked annx_native_tests on an emulated processor with AVX-512: the program
# is the first process of a Linux that Bochs boots on its Ice Lake model, and its output
# comes over the serial port. KERNEL is a bzImage (default: the newest below /boot).
# On Debian: apt-get install bochs bochsbios bochs-term vgabios isolinux syslinux-common
# xorriso cpio linux-image-amd64. Takes several minutes.
set -euo pipefail
tests=$1
kernel=${2:-$(find /boot -name 'vmlinuz-*' | sort -V | tail -n 1)}
limit=${ANNX_EMULATE_SECONDS:-1500}
work=$(mktemp -d)
pid=
finish() {
  [[ -z ${ANNX_KEEP:-} ]] || cp "$work"/{serial.txt,bochs.log,bochsrc} "$ANNX_KEEP"
  [[ -z $pid ]] || kill "$pid" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

mkdir -p "$work/initrd" "$work/iso/isolinux"
strip -o "$work/initrd/init" "$tests"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/iso/initrd.gz"
cp "$kernel" "$work/iso/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin "$work/iso/isolinux/"
cp /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso/isolinux/"
# What follows -- are init's arguments; a word with = that the kernel does not know goes
# to its environment.
cat >"$work/iso/isolinux/isolinux.cfg" <<'CFG'
default annx
prompt 0
label annx
  kernel /vmlinuz
  append initrd=/initrd.gz console=ttyS0 nokaslr mitigations=off nosmp acpi=off noapic nolapic tsc=reliable noxsaves nopku ANNX_EXPECT_ISA=avx512 panic=0 -- kernels
CFG
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux/isolinux.bin \
  -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$work/iso"
cat >"$work/bochsrc" <<CFG
display_library: term
cpu: model=corei7_icelake_u, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial.txt
log: $work/bochs.log
panic: action=report
clock: sync=none
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0
CFG
# Debian's Bochs starts in its debugger.
echo c >"$work/commands"
: >"$work/serial.txt"
# The text display wants a terminal; script gives it one.
script -qec "env TERM=xterm bochs -q -f $work/bochsrc -rc $work/commands" /dev/null >/dev/null 2>&1 </dev/null &
pid=$!
for ((i = 0; i < limit; i += 5)); do
  sleep 5
  if grep -q 'native tests,' "$work/serial.txt"; then break; fi
  if ! kill -0 "$pid" 2>/dev/null; then
    echo "the emulator stopped" >&2
    tail -n 5 "$work/bochs.log" >&2 || true
    break
  fi
done
echo "--- AVX-512, on Bochs's Ice Lake: expect avx512"
grep -aE 'kernels_|FAILED|native tests|Kernel panic' "$work/serial.txt" || tail -n 20 "$work/serial.txt"
grep -qE '[1-9][0-9]* native tests, 0 failed' "$work/serial.txt"
