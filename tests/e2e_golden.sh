#!/bin/bash
# SPDX-License-Identifier: MIT
# What people and scripts see of one capture is what tests/golden holds; figures that follow from the file format are left
# out. After a change that is meant: tests/e2e_golden.sh --write, and look at the difference before it is committed.
set -eu
bin=$DASHCAM_BIN
golden=$DASHCAM_SOURCE/tests/golden
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TZ=UTC NO_COLOR=1
"$DASHCAM_BUILD/tests/golden_capture" "$dir"
cd "$dir"
failures=0

# same NAME ARG...: the output of dashcam ARG...
same() {
	local name=$1
	shift
	same_of "$name" "$bin" "$@"
}

# same_of NAME PROGRAM ARG...
same_of() {
	local name=$1
	shift
	"$@" | sed -E '/^  file  |bytes|MEMORY|"kernel"/d; s/dashcam [0-9.]+"/dashcam VERSION"/' >"$dir/$name"
	if [[ ${write:-} ]]; then
		cp "$dir/$name" "$golden/$name"
	elif ! diff -u "$golden/$name" "$dir/$name"; then
		failures=$((failures + 1))
	fi
}

[[ ${1:-} == --write ]] && write=1 && mkdir -p "$golden"
same info info golden.dcap
same info.json info --json golden.dcap
same show show golden.dcap
same show.cut show --from -600ms --to +1ms --pid 1000 golden.dcap
same show.everything show --everything --name 'http.*' golden.dcap
same events.jsonl export golden.dcap
same trace.json export --format chrome golden.dcap
same_of story "$DASHCAM_BUILD/tools/demo.d/story" golden.dcap
"$bin" settle golden.dcap >/dev/null
same events.jsonl export golden.dcap
((failures == 0))
