#!/bin/bash
# SPDX-License-Identifier: MIT
# Rules as a user has them: what comes true of a program, with a recorder inside or without, is saved once, under the rule's
# name, and `why` tells it; a watcher takes other rules on SIGHUP and keeps its own where those are wrong; commands are run.
source "$(dirname "$0")/e2e.sh"
set -o pipefail
guest=$DASHCAM_BUILD/tests/guest
chmod 0755 "$dir"
export DASHCAM_MEMORY=4MiB

# start NAME EXPRESSION COMMAND...: under dashcam run, in the background
start() {
	local name=$1 expression=$2
	shift 2
	"$bin" run --when "$expression" --out "$dir/$name" -- "$@" >"$dir/$name.out" 2>"$dir/$name.err" </dev/null &
	pids+=($!)
}

# watching NAME: a watcher with $dir/NAME.conf, in the background
watching() {
	"$bin" watch --config "$dir/$1.conf" 2>"$dir/$1.err" &
	pids+=($!)
	until_true grep -qs "save the past now" "$dir/$1.err"
}

# saved NAME PATTERN: one capture by that rule, and the second line of why says PATTERN
saved() {
	local name=$1 files
	mapfile -t files < <(find "$dir/$name" -name '*.dcap' 2>/dev/null)
	((${#files[@]} == 1)) || { wrong "$name: ${#files[@]} captures: $(cat "$dir/$name.err")"; return; }
	[[ $("$bin" info --json "${files[0]}" | jq -r '.rule + " " + .cause') == "when-1 rule" ]] || wrong "$name: by another rule"
	"$bin" why "${files[0]}" >"$dir/$name.why" || wrong "$name: why"
	(($(wc -l <"$dir/$name.why") == 5)) || wrong "$name: why takes five lines"
	grep -q "^rule 'when-1': " "$dir/$name.why" || wrong "$name: why names the rule: $(cat "$dir/$name.why")"
	sed -n 2p "$dir/$name.why" | grep -qE -- "$2" || wrong "$name: why does not say '$2': $(cat "$dir/$name.why")"
	"$bin" ls --store "$dir/$name" | grep -q "when-1: " || wrong "$name: ls does not name the rule"
}

# --- all at the same time: each is about one program ---

start span 'span "slow" > 50ms' "$guest" slow 0 sleep 800 slow 80 slow 1 sleep 300
start open 'span "slow" open > 300ms' "$guest" slow 0 sleep 300 slow 1200
start cpu 'cpu > 5% for 1s' bash -c 'end=$((SECONDS + 4)); while ((SECONDS < end)); do :; done'
start rss 'rss > 50MiB' bash -c 'x=$(head -c 60000000 /dev/zero | tr "\0" x); sleep 3; echo ${#x}'
start fds 'fds > 40' bash -c 'for ((i = 10; i < 60; i++)); do eval "exec $i</dev/null"; done; sleep 3'
start code 'exit code != 0' bash -c 'sleep 0.5; exit 3'
start stopped 'stopped' bash -c '(sleep 2; kill -CONT $$) & kill -STOP $$; :'
start healthy 'span "slow" > 50ms or exit code != 0 or rss > 1GiB' "$guest" slow 1 sleep 800 slow 1 exit 0

start third 'span "slow" > 50ms every 3-rd' "$guest" slow 0 sleep 800 slow 60 slow 80 slow 140 slow 60 sleep 300

# --- of whom: four programs, two of them of one process group ---

mkdir "$rings/scopes"
cat >"$dir/scopes.conf" <<END
[watch]
out = $dir/scopes
dir = $rings/scopes
default-rules = no
after = 500ms
cooldown = 3s
[rule grouped]
when = span "slow" > 50ms
scope = group
[rule everybody]
when = span "slow" > 60ms
scope = all
END
watching scopes
DASHCAM_DIR=$rings/scopes DASHCAM_NAME=one "$guest" group 0 slow 0 say ready sleep 1500 slow 100 sleep 1500 >"$dir/one" &
one=$!
DASHCAM_DIR=$rings/scopes DASHCAM_NAME=many "$guest" tick 20 200 &
pids+=($!)
DASHCAM_DIR=$rings/scopes DASHCAM_NAME=three "$guest" tick 20 200 &
pids+=($one $!)
until_true grep -q ready "$dir/one"
DASHCAM_DIR=$rings/scopes DASHCAM_NAME=two "$guest" group $one tick 20 180 &
pids+=($!)

# --- one that asks again and again: before a capture, while it is under way, and within its cool-down ---

mkdir "$rings/storm"
cat >"$dir/storm.conf" <<END
[watch]
out = $dir/storm
dir = $rings/storm
default-rules = no
after = 500ms
cooldown = 3s
metrics = unix:$dir/storm.sock
END
watching storm
DASHCAM_DIR=$rings/storm "$guest" slow 0 sleep 1000 triggers 10000 sleep 1000 triggers 5000 sleep 2500 triggers 1 sleep 1000 &
storm=$!

# refused: triggers, by budgets
refused() {
	python3 - "$dir/storm.sock" <<'PY'
import re, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
page = b"".join(iter(lambda: s.recv(65536), b""))
print(int(float(re.search(rb"^dashcam_watcher_suppressed_total (\S+)", page, re.M)[1])))
PY
}

# all_told: each of them is a capture, part of one, or was refused
all_told() {
	told=$(find "$dir/storm" -name '*.dcap' -exec "$bin" info --json {} \; | jq -sc "[length, map(.coalesced), $(refused)]")
	[[ $(jq flatten <<<"$told" | jq add) == 15001 ]]
}

# --- meanwhile a watcher whose rules change ---

cat >"$dir/watch.conf" <<END
[watch]
out = $dir/watched
default-rules = no
[rule first]
when = span "none of that name" > 1ms
END
watching watch
watcher=$!
words=() # slow again and again, however long the watcher takes to have the rule; its cool-down lets the first of them through
for ((i = 0; i < 14; i++)); do words+=(sleep 600 slow 80); done
"$guest" slow 0 "${words[@]}" &
slow=$!
until_true bash -c "'$bin' status --json --interval 1ms | jq -e '.rules[] | select(.name == \"first\" and .waits_for == \"none of that name\")' >/dev/null"
sed -i 's/1ms/1 parsec/' "$dir/watch.conf"
kill -HUP $watcher
until_true grep -q "expected a time such as" "$dir/watch.err"
until_true grep -q "rules not read again: the old ones stay" "$dir/watch.err"
"$bin" status --json --interval 1ms | jq -e 'any(.rules[]; .name == "first")' >/dev/null || wrong "a wrong file changes nothing"
cat >"$dir/watch.conf" <<END
[watch]
out = $dir/watched
default-rules = no
[rule second]
when = span "slow" > 50ms
run = cat >$dir/incident; id -u >>$dir/incident
sample = 199
sample-for = 1s
END
kill -HUP $watcher
until_true bash -c "'$bin' status --json --interval 1ms | jq -e 'any(.rules[]; .name == \"second\") and all(.rules[]; .name != \"first\")' >/dev/null"
until_true test -s "$dir/incident"
until_true grep -q "its command ended with status 0" "$dir/watch.err"
head -n -1 "$dir/incident" | jq -e '.rule == "second" and .unit == "ns" and .value >= 80e6 and .name == "slow" and .process == "guest"' \
	>/dev/null || wrong "a command gets the incident: $(cat "$dir/incident")"
until_true bash -c "find '$dir/watched' -name '*second*.dcap' | grep -q ."
kill $slow
if grep -q 'is not sampled more often' "$dir/watch.err"; then
	echo "stacks are refused here: $(grep 'more often' "$dir/watch.err")"
else
	grep -q "rule 'second': 'guest' ([0-9]*) is sampled 199 times a second for 1 s" "$dir/watch.err" || wrong "the rate is raised"
fi
"$bin" why "$(find "$dir/watched" -name '*second*.dcap')" >"$dir/second.why"
grep -q '; from then on 199 stacks a second for 1.00 s; ' "$dir/second.why" || wrong "why tells of it: $(cat "$dir/second.why")"

wait "${pids[@]:0:9}"
saved span 'slow: [0-9.]+ ms against 50.0 ms'
grep -q '/[0-9]* was in slow (' "$dir/span.why" || wrong "why says what the thread was doing: $(cat "$dir/span.why")"
saved open 'slow: .* against 300 ms'
saved cpu '% against 5 %'
saved rss 'MiB against 50.0 MiB'
saved fds '^[45][0-9] descriptors against 40, at '
saved code '^exit code 3, at '
saved stopped '^at '
# the third of them, not the first that was slow enough
saved third 'slow: (1[3-9]|[2-9][0-9])[0-9] ms against 50.0 ms'
# names RULE: of the processes in its capture
names() { "$bin" info --json "$(find "$dir/scopes" -name "*$1*.dcap")" | jq -r '[.processes[].name] | sort | join(" ")'; }
until_true bash -c "find '$dir/scopes' -name '*grouped*.dcap' | grep -q . && find '$dir/scopes' -name '*everybody*.dcap' | grep -q ."
[[ $(names grouped) == "one two" ]] || wrong "of its group: $(names grouped)"
[[ $(names everybody) == "many one three two" ]] || wrong "of all: $(names everybody)"
# of ten thousand triggers in a moment a ring has slots for 32; the rest counts, too
wait $storm
until_true all_told || wrong "of 15001 triggers were told: $told"
find "$dir/storm" -name '*.dcap' -exec "$bin" info --json {} \; | jq -se 'map(.coalesced + .suppressed) | add > 32' >/dev/null ||
	wrong "captures say how many they stand for: $told"
[[ -z $(find "$dir/healthy" -name '*.dcap' 2>/dev/null) ]] || wrong "a healthy program is saved: $(cat "$dir/healthy.err")"

judge
