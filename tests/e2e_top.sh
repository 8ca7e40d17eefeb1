#!/bin/bash
# SPDX-License-Identifier: MIT
# dashcam top: of a recorded program under a watcher, once as a page, once as JSON, and in a terminal that it leaves as it was.
source "$(dirname "$0")/e2e.sh"

"$bin" top --once >"$dir/out" 2>"$dir/err" && wrong "top without a watcher fails"
holds "$dir/err" "no watcher in .*: start one with 'dashcam watch'"

"$bin" watch --out "$dir/captures" --sample off 2>"$dir/watch.err" &
pids+=("$!")
"$DASHCAM_BUILD/tests/guest" tick 20 0 >/dev/null &
guest=$!
pids+=("$guest")
for ((i = 0; i < 200; i++)); do
	"$bin" status 2>/dev/null | grep -q recording && grep -q "save the past now" "$dir/watch.err" && break
	sleep 0.05
done
"$bin" top >"$dir/piped" 2>&1 || wrong "without a terminal it prints one page: $(cat "$dir/piped")"
"$bin" top --once --interval 700ms >"$dir/out" 2>"$dir/err" || wrong "top --once: $(cat "$dir/err")"
holds "$dir/out" '^1 process, [0-9.,]+ events/s, by rate$'
holds "$dir/out" "^guest +$guest "
holds "$dir/out" "^tick +$guest +[0-9]"
! grep -q $'\033' "$dir/out" || wrong "no page for files has escapes"
"$bin" top --json --pid "$guest" >"$dir/json" || wrong "top --json"
jq -e '.processes[0].process == "guest" and .processes[0].window_s > 0 and (.sites[] | select(.site == "tick")).per_s > 10
	and (.sites | all(.sampled == false))' "$dir/json" >"$dir/jq" || wrong "top --json: $(cat "$dir/json")"
"$bin" top --once --name 'no such*' >/dev/null 2>"$dir/err" && wrong "a name that nobody has fails"
holds "$dir/err" "no such process of yours"

# In a terminal of 80 columns: the other screen, a page a second, keys, and back.
if command -v script >/dev/null; then
	(
		sleep 2.2
		printf m
		sleep 1
		printf q
	) | timeout 30 script -qec "stty cols 80 rows 24; '$bin' top; echo ended with \$?" "$dir/screen" >/dev/null
	holds "$dir/screen" $'\033\\[\\?1049h'
	holds "$dir/screen" 'by rate +q quit'
	holds "$dir/screen" 'by max +q quit'
	holds "$dir/screen" $'\033\\[\\?1049l'
	holds "$dir/screen" 'ended with 0'
	widest=$(sed -E 's/\x1b\[(H|\?25h)/\n/g; s/\x1b\[[?0-9;]*[a-zA-Z]//g' "$dir/screen" | tr -d '\r' | grep -E '^(SPAN|tick|PROCESS|guest)' | wc -L)
	((widest > 0 && widest <= 80)) || wrong "a page of 80 columns is $widest wide: $(cat -v "$dir/screen" | head -c 1500)"
fi

judge
