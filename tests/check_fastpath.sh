#!/bin/bash
# SPDX-License-Identifier: MIT
# Claim: an event takes no locked instruction and no system call, and on its fast path no call: from the function's entry
# to its first return. objdump of the library as built; gcc puts the slow paths behind that return, clang before it, so
# its build is asked for locks only.
set -u
lib=$DASHCAM_BUILD/recorder/libdashcam.so.1.0.0
[ "$(uname -m)" = x86_64 ] || { echo "skipped: reads x86-64 code"; exit 77; }
command -v objdump >/dev/null || { echo "skipped: no objdump"; exit 77; }
[ -f "$lib" ] || { echo "check_fastpath: no $lib"; exit 1; }
nm -D "$lib" | grep -q __tsan_func_entry && { echo "skipped: instrumented build"; exit 77; }
nm -D "$lib" | grep -q __asan_ && { echo "skipped: instrumented build"; exit 77; }

fast_path() { # the instructions of function $1 up to its first ret
	objdump -d --no-show-raw-insn --disassemble="$1" "$lib" | awk '/^ / { print; if ($2 ~ /^ret/) exit }'
}

bad='	(lock |xchg .*\(|mfence|syscall|call)'
readelf -p .comment "$lib" | grep -q clang && bad='	(lock |xchg .*\(|mfence|syscall)'
failed=0
for f in dc_begin0 dc_begin1 dc_begin2 dc_end dc_event0 dc_event1 dc_event2; do
	code=$(fast_path $f)
	case $code in
	*rdtsc*) ;;
	*) echo "$f: no rdtsc before its first ret: is this the fast path?"; failed=1 ;;
	esac
	if found=$(grep -E "$bad" <<<"$code"); then
		printf '%s: on the fast path:\n%s\n' "$f" "$found"
		failed=1
	fi
done
[ $failed = 0 ] && echo "no locked instruction and no call on the fast path of 7 functions"
exit $failed
