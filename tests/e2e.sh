# SPDX-License-Identifier: MIT
# Sourced by e2e_*.sh: the program, places of a script of its own, and how it says that something is wrong. What still runs
# and lies about at the end goes, whatever the end was.
#
#   $bin           the program dashcam
#   $dir $rings    directories, on disk and in memory; the second one is where processes record
#   pids+=(PID)    is stopped at the end
#   run=PID        a `dashcam run`, whose command is killed at the end

set -u
bin=$DASHCAM_BIN
dir=$(mktemp -d)
rings=$(mktemp -d "${DASHCAM_SCRATCH:-/dev/shm}/$(basename "$0" .sh).XXXXXX")
export DASHCAM_DIR=$rings XDG_STATE_HOME=$dir/state NO_COLOR=1 TZ=UTC
failures=0 run='' pids=()

# pid_of: the command of $run
pid_of() { cat "/proc/$run/task/$run/children" 2>/dev/null | tr -d ' '; }

leave() {
	[[ $run ]] && kill -9 "$(pid_of)" 2>/dev/null
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
	wait 2>/dev/null
	rm -rf "$dir" "$rings"
}
trap leave EXIT

wrong() {
	echo "FAILED: $*"
	failures=$((failures + 1))
}

# holds FILE PATTERN, lacks FILE PATTERN: extended regular expressions
holds() { grep -qE -- "$2" "$1" || wrong "$1 does not hold '$2': $(head -c 3000 "$1")"; }
lacks() { ! grep -qE -- "$2" "$1" || wrong "$1 holds '$2': $(head -c 3000 "$1")"; }

# until_true COMMAND...: for at most half a minute; hosts of tests are slow at times
until_true() {
	for ((i = 0; i < 600; i++)); do
		"$@" && return 0
		sleep 0.05
	done
	wrong "waited in vain: $*"
	return 1
}

# capture_in DIR: the only capture there
capture_in() {
	local found
	found=$(find "$1" -name '*.dcap')
	(($(grep -c . <<<"$found") == 1)) || wrong "expected one capture in $1, got: $found"
	echo "$found"
}

# same_calls FILE FORMATS: show and exports name the same calls of events with stacks, and there is one; they are in $dir/calls
same_calls() {
	"$bin" show "$1" | sed -nE 's/.* stack +[^ ]+ (.+)/\1/p' >"$dir/calls"
	"$bin" export "$1" | jq -r 'select(.kind == "stack").args.frames | join(" <- ")' >"$dir/calls.jsonl"
	"$bin" export -f chrome "$1" | jq -r '.traceEvents[] | select(.cat == "stack").args.frames | join(" <- ")' >"$dir/calls.chrome"
	[[ -s $dir/calls ]] || wrong "no stack of an event in $1"
	"$bin" export -f folded --events "$1" | python3 -c '
import re, sys
for line in sys.stdin:
    calls, count = re.match("[^;]*;[^;]*;(.*) ([0-9]+)$", line).groups()
    print("\n".join([" <- ".join(reversed(calls.split(";")))] * int(count)))' >"$dir/calls.folded"
	"$bin" export -f pprof "$1" >"$dir/pb"
	PYTHONDONTWRITEBYTECODE=1 python3 "$DASHCAM_SOURCE/tests/pprof.py" "$dir/pb" >"$dir/calls.pprof"
	for format in $2; do
		diff <(sort "$dir/calls") <(sort "$dir/calls.$format") >"$dir/difference" || wrong "$format, show: $(cat "$dir/difference")"
	done
}

# judge: the last line of a script
judge() {
	((failures == 0)) && echo "all as expected"
	exit $((failures > 0))
}
