#!/bin/bash
# SPDX-License-Identifier: MIT
# Programs that never heard of dashcam, as people would look at them: run, attach, trigger, death; root and an ordinary user.
source "$(dirname "$0")/e2e.sh"
app=$DASHCAM_BUILD/tests/spinner

# sampled FILE: it holds samples of both threads, and says how they came about
sampled() {
	"$bin" info "$1" --json >"$dir/json" || wrong "info $1"
	holds "$dir/json" '"name": "spinner"'
	"$bin" report "$1" hot-functions >"$dir/out" || wrong "report $1 hot-functions"
	local samples
	samples=$(sed -nE '1s/.*of CPU in ([0-9]+) samples.*/\1/p' "$dir/out")
	((${samples:-0} >= 5)) || wrong "samples of $1: $(head -1 "$dir/out")"
	# Raw captures, and where nothing can be unwound, have no names.
	grep -q 'without a stack' "$dir/out" || holds "$dir/out" function_that_computes
	"$bin" report "$1" threads >"$dir/out" || wrong "report $1 threads"
	(($(grep -c spinner "$dir/out") >= 1)) || wrong "report $1 threads: $(cat "$dir/out")"
}

"$bin" run --sample 199 -- sleep 0.1 2>"$dir/err" || wrong "run -- sleep"
if grep -q 'not sampled' "$dir/err"; then
	sed 's/.*not sampled: /sampling is refused here: /' "$dir/err"
	exit 77
fi
holds "$dir/err" 'only sampled, 199 stacks a second'

# A death under run: one capture, with the signal, and the same signal for us.
status=$(bash -c '"$@" & pid=$!; sleep 1; kill -USR2 $pid; wait $pid; echo $?' - "$bin" run --out "$dir/run" -- "$app" 11 \
	2>"$dir/err")
[[ $status == 139 ]] || wrong "run dies by the signal of its command: $status, $(cat "$dir/err")"
file=$(capture_in "$dir/run")
sampled "$file"
"$bin" info "$file" >"$dir/out"
holds "$dir/out" 'died by SIGSEGV'

# Attached: a trigger, a death; the process is not ours.
"$app" 6 2>/dev/null &
pid=$!
pids+=("$pid")
"$bin" attach --out "$dir/attach" "$pid" "$pid" 2>"$dir/err" &
watcher=$!
pids+=("$watcher")
until_true grep -q 'is sampled' "$dir/err"
(($(grep -c 'is sampled' "$dir/err") == 1)) || wrong "a process typed twice is one: $(cat "$dir/err")"
"$bin" status >"$dir/out" || wrong "status of what is only sampled"
holds "$dir/out" "spinner\[$pid\]: has no recorder inside, is only sampled at 49 Hz"
"$bin" status --json | jq -e ".sampling[] | select(.pid == $pid) | .sampled and (.recorder_inside | not)" >/dev/null ||
	wrong "status --json of what is only sampled: $("$bin" status --json)"
sleep 0.7
file=$("$bin" trigger --pid "$pid" --wait) || wrong "trigger --pid of an attached process"
until_true grep -q ': settled' "$dir/err"
sampled "$file"
"$bin" info "$file" >"$dir/out"
holds "$dir/out" 'dashcam trigger'
kill -USR2 "$pid"
wait "$watcher" || wrong "attach ends by itself: $(cat "$dir/err")"
(($(find "$dir/attach" -name '*death*.dcap' | wc -l) == 1)) || wrong "its death is saved: $(cat "$dir/err")"
[[ -z $(ls "$rings") ]] || wrong "attach leaves nothing behind: $(ls "$rings")"

# What cannot be attached to is one line.
"$bin" attach 999999999 2>"$dir/err"
[[ $? == 1 ]] || wrong "attach to nobody"
holds "$dir/err" 'there is no such process'
"$bin" attach x 2>"$dir/err"
[[ $? == 64 ]] || wrong "attach x"

# An ordinary user: own processes, and nobody else's.
if ((EUID == 0)) && command -v setpriv >/dev/null; then
	mkdir "$dir/user" "$rings/user"
	chmod 755 "$dir"
	chmod 755 "$rings"
	chown 65534:65534 "$dir/user" "$rings/user"
	chmod 700 "$rings/user"
	cp "$bin" "$app" "$dir/user/"
	user() { setpriv --reuid 65534 --regid 65534 --clear-groups env DASHCAM_DIR="$rings/user" XDG_STATE_HOME="$dir/user/state" "$@"; }
	user "$dir/user/dashcam" attach 1 2>"$dir/err"
	[[ $? == 1 ]] || wrong "a user attaches to init"
	holds "$dir/err" "another user's"
	user "$dir/user/dashcam" run --out "$dir/user/captures" -- "$dir/user/spinner" 11 2 2>"$dir/err"
	file=$(capture_in "$dir/user/captures")
	sampled "$file"
fi

judge
