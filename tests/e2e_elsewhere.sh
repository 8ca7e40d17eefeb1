#!/bin/bash
# SPDX-License-Identifier: MIT
# Processes (tests/holder.c) that are not as one expects them: in another mount namespace, where alone its binary is to be
# seen; held by another tracer; one that may not be traced; one of 500 threads. Each is saved, whole, and what could not be
# had of it is one line.
source "$(dirname "$0")/e2e.sh"
app=$DASHCAM_BUILD/tests/holder
print=$DASHCAM_BUILD/tests/print_stacks

nm "$app" | grep -qE '__tsan_' && { echo "skipped: threads of TSan's own"; exit 77; }
cd "$dir" || exit 1

start() { # COMMAND...: until it is ready
	rm -rf out
	: >said
	"${as[@]}" "$bin" run --sample off --out out -- "$@" >said 2>log &
	run=$!
	until_true grep -q ready said
	until_true [ -n "$(pid_of)" ]
	pid=$(pid_of)
}

save() { # WHAT: leaves its stacks in stacks, and what is said of it in info
	capture=$("${as[@]}" "$bin" trigger --pid "$pid" --wait) || wrong "$1: trigger: $(cat log)"
	until_true grep -q ': settled' log
	"$print" "$capture" >stacks || wrong "$1: $capture cannot be read"
	"$bin" info "$capture" >info || wrong "$1: info: $(cat info)"
	grep -q 'Nothing was lost' info || wrong "$1: not whole: $(cat info)"
	echo "$1:$(sed -n 's/^  threads  *//p' info | sed 's/, for.*each//; s/^/ /')"
}

finish() {
	kill -9 "$pid"
	wait "$run"
	run=
}

as=()
start "$app" -t 499
save '500 threads'
stopped=$(sed -nE 's/^  threads  *([0-9]+) stopped.*/\1/p' info)
((stopped == 500)) || grep -q "out of time after $stopped threads" info || wrong "of 500 threads: $(cat info)"
((stopped >= 50 && $(grep -c ' wait_here$' stacks) == stopped)) || wrong "$(grep -c ' wait_here$' stacks) of $stopped threads are where they wait"
"$bin" report "$capture" threads -n 1000 >threads || wrong "report threads"
(($(grep -c '^holder/' threads) == 500)) || wrong "not all 500 threads are listed: $(grep -c '^holder/' threads) $(head -5 threads)"
finish

# A mount that nobody else sees, at a place that is empty for all others. The program was called differently there.
mkdir inside
if unshare -m true 2>/dev/null; then
	# shellcheck disable=SC2016 # they are the inner shell's
	start unshare -m --propagation private sh -c 'mount -t tmpfs none inside && cp "$0" inside/other && exec inside/other -t 1' "$app"
	[[ ! -e inside/other ]] || wrong "the mount is to be seen"
	save 'another mount namespace'
	(($(grep -c ' wait_here$' stacks) == 2)) || wrong "no names from another mount namespace: $(cat stacks)"
	finish
fi

if command -v strace >/dev/null; then
	start "$app" -t 2
	strace -f -qq -o /dev/null -p "$pid" 2>/dev/null &
	tracer=$!
	pids+=("$tracer")
	until_true grep -q "TracerPid:.$tracer" "/proc/$pid/status"
	save 'held by a tracer'
	grep -qE "none stopped at the trigger; 3 could not be: thread [0-9]+ is held by another tracer, process $tracer" info ||
		wrong "not said of another tracer: $(cat info)"
	kill "$tracer"
	wait "$tracer" 2>/dev/null
	pids=()
	finish
fi

# An ordinary user's process that is not dumpable: no ptrace, and its /proc is root's.
if ((EUID == 0)) && command -v setpriv >/dev/null; then
	chmod 755 "$dir" "$rings"
	mkdir user "$rings/user"
	chmod 700 "$rings/user"
	cp "$bin" "$app" user/
	chown -R 65534:65534 user "$rings/user"
	cd user || exit 1
	bin=./dashcam
	as=(setpriv --reuid 65534 --regid 65534 --clear-groups env DASHCAM_DIR="$rings/user" XDG_STATE_HOME="$dir/user/state")
	start ./holder -u -t 1
	save 'may not be traced'
	grep -qE 'none stopped at the trigger; 2 could not be: thread [0-9]+ may not be stopped by us' info || wrong "not said: $(cat info)"
	finish
fi

judge
