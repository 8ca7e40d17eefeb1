#!/bin/bash
# SPDX-License-Identifier: MIT
# The program as people use it: record, trigger, read, export, settle, keep, remove, scrub, recover; then the same with captures
# that are cut, spoiled, newer, or somebody else's. One recorded program has every kind of event and text that is hard to print.
source "$(dirname "$0")/e2e.sh"
app=$DASHCAM_BUILD/tests/tool_app
store=$dir/captures

# expect STATUS PATTERN ARG...: exit status, one line on stderr, and it says PATTERN
expect() {
	local status=$1 pattern=$2
	shift 2
	"$bin" "$@" >"$dir/out" 2>"$dir/err" </dev/null
	local found=$?
	((found == status)) || wrong "dashcam $*: exit status $found, expected $status: $(cat "$dir/err")"
	(($(wc -l <"$dir/err") == 1)) || wrong "dashcam $*: expected one line, got: $(cat "$dir/err")"
	grep -qE -- "$pattern" "$dir/err" || wrong "dashcam $*: expected '$pattern', got: $(cat "$dir/err")"
}

# --- run: what it says, how it ends, what it saves ---

"$bin" run --out "$store" -- "$app" exit 7 >"$dir/out" 2>"$dir/err"
[[ $? == 7 ]] || wrong "run gives the exit status of its command"
holds "$dir/err" 'dashcam trigger --pid [0-9]+'
[[ ! -e $store || -z $(ls "$store") ]] || wrong "an orderly end saves nothing"
"$bin" run --out "$store" --on-exit -- "$app" exit 3 >/dev/null 2>"$dir/err"
[[ $? == 3 ]] || wrong "run --on-exit gives the exit status"
(($(find "$store" -name '*.dcap' | wc -l) == 1)) || wrong "run --on-exit saves one capture"
status=$(bash -c '"$@"; echo $?' - "$bin" run --out "$dir/death" -- "$app" kill 2>/dev/null)
[[ $status == 137 ]] || wrong "run dies by the signal of its command"
death=$(find "$dir/death" -name '*.dcap')
[[ -s $death ]] || wrong "death by a signal is saved"
"$bin" run -- true 2>"$dir/err" || wrong "run -- true"
holds "$dir/err" "no recorder inside"
"$bin" run -- "$dir/none" 2>"$dir/err"
[[ $? == 127 ]] || wrong "a command that is not there is 127"
"$bin" run -- "$dir" 2>"$dir/err"
[[ $? == 126 ]] || wrong "a command that cannot be run is 126"
expect 64 "expected a command" run
"$bin" run --out "$dir/lost" -- sh -c 'rm -rf "$0"; : >"$0"; kill -9 $$' "$dir/lost" 2>"$dir/err" &
wait $! 2>/dev/null
holds "$dir/err" "the incident is lost"
lacks "$dir/err" "rings stay" # there is none
expect 64 "--memory: '1B' is too small, expected at least 512KiB" run --memory 1B -- true
"$bin" run --out "$dir/small" --memory 512KiB --on-exit -- "$app" >"$dir/out" 2>"$dir/err" || wrong "run --memory 512KiB"
lacks "$dir/err" "has no recorder inside" # the least that is taken is enough
DASHCAM=0 "$bin" run --out "$dir/small" -- "$app" >"$dir/out" 2>"$dir/err" || wrong "DASHCAM=0 run"
holds "$dir/err" "'$app' recorded nothing \(DASHCAM=0\)"
(ulimit -f 400; "$bin" run --out "$dir/small" -- "$app") >"$dir/out" 2>"$dir/err"
holds "$dir/err" "'$app' recorded nothing \(RLIMIT_FSIZE is smaller than a ring, see 'dashcam doctor'\)"
(ulimit -f 400; "$bin" doctor) | grep -q '^Failed  *file size' || wrong "doctor knows of limits that leave no ring"
[[ -z $(ls "$rings") ]] || wrong "run leaves nothing behind: $(ls "$rings")"

# --- watch: configuration, one per directory, triggers ---

# not sampled: which thread `why` tells of would be up to who has a sample by chance
printf '[watch]\nout = %s\ncooldown = 0\nwindow = 20s\nsettle = no\nsample = off\n' "$store" >"$dir/conf"
printf '[watch]\nwindow = 20\n' >"$dir/bad.conf"
expect 1 "line 2: window: '20' was not understood" watch --config "$dir/bad.conf"
expect 1 "cannot read the configuration" watch --config "$dir/none.conf"
expect 1 "/dev/zero': it is not a regular file" watch --config /dev/zero
truncate -s 2M "$dir/huge.conf"
expect 1 "it is larger than 1 MiB" rules check "$dir/huge.conf"
expect 1 "no watcher in" trigger --all
"$bin" watch --config "$dir/conf" 2>"$dir/watch.err" &
watcher=$!
pids+=("$watcher")
until_true grep -qs "save the past now: dashcam trigger --all --wait" "$dir/watch.err"
holds "$dir/watch.err" "captures go to '$store'"
expect 1 "watched already" watch --config "$dir/conf"
expect 1 "no process to save" trigger --all
mkfifo "$dir/stdin"
"$app" wait <"$dir/stdin" >"$dir/app.out" &
app_pid=$!
pids+=("$app_pid")
exec 3>"$dir/stdin"
until_true grep -q recorded "$dir/app.out"
until_true bash -c "'$bin' status --json | jq -e '.processes[] | select(.pid == $app_pid and .watcher_pid == $watcher)' >/dev/null"
"$bin" status --json >"$dir/status.json"
jq -e ".processes[] | select(.pid == $app_pid) | .verified and .state == \"recording\" and .events > 10 and .window_s > 0
	and .memory_bytes > 0 and .cap_bytes > .memory_bytes and .dropped == 0" "$dir/status.json" >/dev/null ||
	wrong "status: $(cat "$dir/status.json")"
expect 64 "'0x12' is no trace id" show --trace 0x12 "$death"
expect 64 "which processes" trigger
expect 64 "which processes" trigger --all --pid 1
expect 1 "no watcher records process 1" trigger --pid 1
capture=$("$bin" trigger --pid "$app_pid" --wait --reason 'why "this" one') || wrong "trigger --wait"
[[ -s $capture ]] || wrong "trigger prints the path: '$capture'"
"$bin" trigger --name 'tool_*' --last 1s --after 10ms --wait --json >"$dir/out" || wrong "trigger --json"
jq -e '.[0].durable and .[0].events > 10 and .[0].processes == 1' "$dir/out" >/dev/null || wrong "$(cat "$dir/out")"
expect 0 "is under way: 'dashcam ls' lists it, --wait prints its path" trigger --pid "$app_pid" --last 1s
[[ ! -s $dir/out ]] || wrong "a path that is not known is not printed: $(cat "$dir/out")"

# --- sites: listed, switched ---

"$bin" sites --pid "$app_pid" --json >"$dir/sites.json"
jq -e 'any(.[]; .name == "login" and .on and .args == ["user", "password"])' "$dir/sites.json" >/dev/null ||
	wrong "sites: $(cat "$dir/sites.json")"
"$bin" sites --pid "$app_pid" 'lo*' --off >"$dir/out" || wrong "sites --off"
[[ $("$bin" sites --json login | jq '.[0].on') == false ]] || wrong "a site switched off is off"
"$bin" sites --pid "$app_pid" login --throttle 16 >"$dir/out"
[[ $("$bin" sites --json login | jq '.[0].one_of') == 16 ]] || wrong "a site throttled is throttled"
"$bin" sites '*' --on >"$dir/out"
"$bin" sites --json | jq -e 'all(.[]; .on and .one_of == 1)' >/dev/null || wrong "every site is on again"

# --- info, show, export: raw and settled say the same, but that calls have names in one that is settled ---

check_reading() { # FILE, pattern of the innermost call
	local file=$1 innermost=$2 n
	"$bin" info --json "$file" >"$dir/info.json" || wrong "info $file"
	jq -e '.reason == "why \"this\" one" and .cause == "command" and .window_s > 0 and (.time | startswith("20")) and
		.events > 10 and .bytes > 0 and .bytes_per_event > 0 and .lost == {overwritten: 0, dropped: 0, discarded: 0} and
		(.processes | length == 1) and (.processes[0] | .lanes == 2 and .events > 10 and .name == "tool_app")' \
		"$dir/info.json" >/dev/null || wrong "info --json: $(cat "$dir/info.json")"
	"$bin" info "$file" >"$dir/info" || wrong "info"
	holds "$dir/info" 'why "this" one'
	holds "$dir/info" "Nothing was lost"
	"$bin" export "$file" >"$dir/jsonl" || wrong "export"
	n=$(jq .events "$dir/info.json")
	(($(grep -cv '"kind":"\(open\|thread\)"' "$dir/jsonl") == n)) || wrong "export has the $n events of info"
	jq -es 'map(.t) == (map(.t) | sort)' "$dir/jsonl" >/dev/null || wrong "export is ordered by time"
	jq -es 'all(.[]; has("t") and has("pid") and has("tid") and has("kind") and has("name") and (.args | type == "object"))' \
		"$dir/jsonl" >/dev/null || wrong "every event has its members"
	jq -es 'all(.[] | select(.kind == "begin" or .kind == "end" or .kind == "open"); .depth >= 1)' "$dir/jsonl" >/dev/null ||
		wrong "begin and end carry depth"
	holds "$dir/jsonl" '"u":18446744073709551615,"i":-9223372036854775808,"f":0.1,"b":true,"p":"0x7f00dead"'
	holds "$dir/jsonl" '"s":"quote\\" back\\\\ nl\\n esc\\u001b\[2J bad\\ufffd\\ufffd cut\\ufffd'
	holds "$dir/jsonl" '"null":null,"secret":"<secret>"'
	holds "$dir/jsonl" '"nan":"NaN","inf":"Infinity"'
	holds "$dir/jsonl" '"k":1,"k#2":2'
	holds "$dir/jsonl" '"kind":"log".*"level":"warn","text":"conn 7 closed after timeout"'
	holds "$dir/jsonl" '"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"'
	grep -q 'hidden-from-all' "$dir/jsonl" && wrong "a secret is exported"
	"$bin" show --json "$file" | jq -c 'del(.thread)' | cmp -s - <(jq -c 'del(.thread)' "$dir/jsonl") || wrong "show --json is export's"
	"$bin" show --json --grep 'closed after' "$file" | jq -es 'length == 1 and .[0].kind == "log" and .[0].thread == "main-lane"' \
		>/dev/null || wrong "show --json --grep: $("$bin" show --json --grep 'closed after' "$file")"
	jq -es '(map(select(.kind == "flow_out"))[0].args.id) == (map(select(.kind == "flow_in"))[0].args.id)' "$dir/jsonl" \
		>/dev/null || wrong "flow ids match"
	same_calls "$file" "jsonl chrome folded" # nothing is a location of pprof in one that is raw
	holds "$dir/calls" "^$innermost( <- |\$)"
	jq -es 'any(.[]; .name == "outer" and .kind == "end" and .duration_ns > 900000 and .depth == 1)' "$dir/jsonl" \
		>/dev/null || wrong "ends have durations"
	"$bin" export --format chrome -o "$dir/trace.json" "$file" || wrong "export --format chrome"
	jq -e '(.traceEvents | length > 20) and all(.traceEvents[]; .ph and (.pid | type == "number"))
		and ([.traceEvents[] | select(.ph == "B")] | length) == ([.traceEvents[] | select(.ph == "E")] | length) + 1
		and ([.traceEvents[] | select(.ph == "b")] | length) == ([.traceEvents[] | select(.ph == "e")] | length)
		and any(.traceEvents[]; .ph == "s" and .id) and any(.traceEvents[]; .ph == "f" and .bp == "e")
		and any(.traceEvents[]; .ph == "C" and .args.value == 42)
		and any(.traceEvents[]; .ph == "M" and .name == "process_name" and .args.name == "tool_app")
		and any(.traceEvents[]; .ph == "M" and .name == "thread_name" and .args.name == "other")
		and all(.traceEvents[] | select(.ph != "M"); .ts >= 0)' "$dir/trace.json" >/dev/null ||
		wrong "export --format chrome: $(head -c 1000 "$dir/trace.json")"
	"$bin" show "$file" >"$dir/show" || wrong "show"
	holds "$dir/show" ' warn +conn 7 closed after timeout$'
	holds "$dir/show" 'begin +outer a=1$'
	holds "$dir/show" '  inner$'
	holds "$dir/show" 'end +outer [0-9.]+ ms$'
	holds "$dir/show" 'esc\\x1b\[2J bad\\xff\\xfe'
	holds "$dir/show" ' ---- trigger: why "this" one \(command\) ----$'
	grep -q $'\x1b' "$dir/show" && wrong "show writes escape sequences into a file"
	"$bin" show --name 'other.*' "$file" | grep -q 'outer' && wrong "show --name lets others through"
	"$bin" show --grep 'closed after (timeout|reset)' "$file" | grep -c 'conn 7' | grep -qx 1 || wrong "show --grep"
	"$bin" show --to -1h "$file" | grep -q outer && wrong "show --to lets later events through"
	# a time of day is the nearest one to the trigger
	(($("$bin" show --from "$(date -d '-1 hour' +%H:%M)" "$file" | wc -l) > 10)) || wrong "show --from an hour ago has all"
	(($("$bin" export --tid "$app_pid" "$file" | jq -s 'map(.tid) | unique | length') == 1)) || wrong "export --tid"
	# why: five lines, the thread with its span open, and what to type next; one trace, by its first digits
	"$bin" why "$file" >"$dir/why" || wrong "why $file"
	(($(wc -l <"$dir/why") == 5)) || wrong "why takes five lines: $(cat "$dir/why")"
	holds "$dir/why" "^somebody asked for it with 'dashcam trigger': 'why \"this\" one'\$"
	holds "$dir/why" '^main-lane/[0-9]+ was in left.open \('
	holds "$dir/why" '^next, type: dashcam show .* --trace 0af7651916cd43dd$'
	"$bin" why --json "$file" | jq -e '.at.open[0].name == "left.open" and .waiting.job == 0 and .cause == "command"' >/dev/null ||
		wrong "why --json: $("$bin" why --json "$file")"
	"$bin" show "$file" --trace 0AF7651916 >"$dir/traced" || wrong "show --trace"
	holds "$dir/traced" 'main-lane.*login'
	grep -q 'other.work' "$dir/traced" && wrong "--trace shows a thread that did not work on it"
	n=$("$bin" show "$file" --trace 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 --name login | grep -c login)
	((n == 1)) || wrong "--trace with --name: $n lines"
	"$bin" show "$file" --trace 1af7 >"$dir/traced" 2>"$dir/err"
	[[ $? == 1 ]] && grep -q "worked on a trace '1af7'" "$dir/err" || wrong "--trace of nobody is said: $(cat "$dir/err")"
	grep -q login "$dir/traced" && wrong "--trace of another id shows nothing"

}

without_names() { jq -c 'del(.args.frames)' "$dir/jsonl"; }
check_reading "$capture" 'tool_app\+0x[0-9a-f]+'
without_names >"$dir/jsonl.raw"
expect 64 "is no regular expression" show --grep '(' "$capture"
expect 64 "no process 1 in this capture" show --pid 1 "$capture"
expect 64 "JSON has events only" show --json --stacks "$capture"
expect 64 "is later than" show --from +1s --to -1s "$capture"
before=$(stat -c %s "$capture")
"$bin" settle "$capture" >"$dir/out" || wrong "settle"
(($(stat -c %s "$capture") < before)) || wrong "settling makes a capture smaller"
"$bin" info --json "$capture" | jq -e '.settled and .complete' >/dev/null || wrong "a settled capture says so"
check_reading "$capture" '(record|main)' # a compiler may have put the one into the other
without_names >"$dir/jsonl.settled"
cmp -s "$dir/jsonl.settled" "$dir/jsonl.raw" || wrong "raw and settled say the same: $(diff "$dir"/jsonl.{settled,raw} | head -4)"
"$bin" settle "$store" >"$dir/out" || wrong "settle of a directory: $(cat "$dir/out")"
"$bin" settle "$store" | grep -q "settled already" || wrong "settling twice"
"$bin" export -o "$dir/full/x.json" "$capture" 2>"$dir/err" && wrong "an output directory that is not there"
"$bin" export "$capture" >/dev/full 2>"$dir/err"
[[ $? == 1 && $(wc -l <"$dir/err") == 1 ]] || wrong "a full disk behind export is an error: $(cat "$dir/err")"
[[ -z $(find "$dir" -name '*.part*') ]] || wrong "unfinished files are left"

# --- info: why less than the window is there, and what helps ---

# limit FILE: what info says of it; short OPTION... -- COMMAND...: records it to its end
limit() { "$bin" info --json "$1" | jq -r '[.processes[].limited_by // "none"] | join(" ")'; }
short() {
	rm -rf "$dir/short"
	# a leak check is a process of its own, and would be in the capture
	ASAN_OPTIONS=detect_leaks=0 "$bin" run --out "$dir/short" --on-exit "$@" 2>"$dir/err" || wrong "run $*: $(cat "$dir/err")"
	"$bin" info "$dir"/short/*.dcap >"$dir/out"
}
guest=$DASHCAM_BUILD/tests/guest
"$bin" run --out "$dir/short" -- "$guest" trigger once sleep 150 trigger again sleep 150 trigger again 2>"$dir/err"
(($(grep -c "'guest' not saved: .*; more are only counted" "$dir/err") == 1)) || wrong "of a storm the first is told: $(cat "$dir/err")"
holds <("$bin" info "$capture") "saved because  somebody asked for it with 'dashcam trigger' \(process [0-9]+\)$"
short -- "$guest" burst 100
[[ $(limit "$dir"/short/*.dcap) == start ]] || wrong "a young process is limited by its start"
holds "$dir/out" 'limited by its start'
holds "$dir/out" 'Nothing was lost'
short -m 1MiB -- "$guest" burst 1000000 fork burst 10
[[ $(limit "$dir"/short/*.dcap) == "memory_cap start" ]] || wrong "each process has its own limit: $(limit "$dir"/short/*.dcap)"
holds "$dir/out" 'limited by the memory cap of guest, 1.0 MiB:'
mib=$(sed -n 's/.*DASHCAM_MEMORY=\([0-9]*\)MiB would hold .*/\1/p' "$dir/out")
((mib > 1 && mib < 1000)) || wrong "what would have held a process of a moment is small: $(cat "$dir/out")"
short -m 1MiB -w 100ms -- "$guest" burst 100000 sleep 500 burst 100
[[ $(limit "$dir"/short/*.dcap) == none ]] || wrong "what is older than the window is not missing: $(cat "$dir/out")"

# --- ls, keep, rm ---

name=$(basename "$capture")
list=$(dirname "$capture")
(($("$bin" ls --store "$store" --json | jq length) >= 2)) || wrong "ls lists them"
"$bin" ls --store "$store" --json | jq -e 'map(.time) == (map(.time) | sort | reverse)' >/dev/null || wrong "ls: newest first"
"$bin" ls --store "$store" >"$dir/out"
holds "$dir/out" "$name +why \"this\" one"
"$bin" keep --store "$store" "$name" || wrong "keep"
holds <("$bin" ls --store "$store") "settled, kept +$name"
expect 1 "is kept, it stays" rm --store "$store" "$name"
"$bin" keep --undo "$capture" || wrong "keep --undo by path"
cp "$capture" "$dir/copy.dcap"
"$bin" rm --store "$store" "${name%.dcap}" || wrong "rm by name without its ending"
[[ ! -e $capture ]] || wrong "rm removes"
expect 1 "no such capture" rm --store "$store" "$name"
expect 1 "no such capture" keep "$dir/none.dcap"
expect 1 "not a capture" rm "$dir/conf"
expect 1 "No such file" ls --store "$dir/none"
capture=$dir/copy.dcap

# --- scrub ---

cp "$capture" "$dir/scrub.dcap"
grep -q hunter2 <("$bin" export "$dir/scrub.dcap") || wrong "the password is there at first"
expect 64 "which arguments" scrub "$dir/scrub.dcap"
"$bin" scrub "$dir/scrub.dcap" --arg password --arg s >"$dir/out" || wrong "scrub"
holds "$dir/out" "3 arguments removed"
grep -q hunter2 <("$bin" export "$dir/scrub.dcap") && wrong "the password is exported after scrubbing"
"$bin" export "$dir/scrub.dcap" >"$dir/jsonl.scrubbed"
holds "$dir/jsonl.scrubbed" '"user":"alice","password":"<dropped>"'
(($(wc -l <"$dir/jsonl.scrubbed") == $(wc -l <"$dir/jsonl"))) || wrong "scrubbing loses events"
expect 1 "no site has an argument" scrub "$dir/scrub.dcap" --arg no-such-argument

# --- recover: the ring of a program that nobody watched ---

exec 3>&-
wait "$app_pid"
kill "$watcher"
wait "$watcher" || wrong "the watcher ends orderly: $(cat "$dir/watch.err")"
rm -f "$rings"/*.ring
"$app" wait <"$dir/stdin" >"$dir/app.out" &
app_pid=$!
pids+=("$app_pid")
exec 3>"$dir/stdin"
until_true grep -q recorded "$dir/app.out"
ring=$(echo "$rings"/*.ring)
expect 1 "its process lives" recover "$ring"
kill -9 "$app_pid"
wait "$app_pid" 2>/dev/null
"$bin" status | grep -qE '^tool_app .* died ' || wrong "status lists the dead: $("$bin" status)"
expect 64 "does not end in .dcap" recover "$ring" -o "$dir/x"
"$bin" recover "$ring" -o "$dir/recovered.dcap" >"$dir/out" || wrong "recover"
[[ $(cat "$dir/out") == "$dir/recovered.dcap" ]] || wrong "recover prints the path"
expect 1 "is there already" recover "$ring" -o "$dir/recovered.dcap"
"$bin" info --json "$dir/recovered.dcap" | jq -e '.cause == "recover" and .events > 10' >/dev/null || wrong "a recovered capture"
holds <("$bin" show "$dir/recovered.dcap") 'begin +left.open why="never ended"'
holds <("$bin" why "$dir/recovered.dcap") '^main-lane/[0-9]+ was in left.open ' # its last event
grep -qa 'hunter2-secret' "$dir/recovered.dcap" || wrong "the password is in the bytes of a raw capture"
"$bin" scrub "$dir/recovered.dcap" --arg password >"$dir/out" || wrong "scrub of a raw capture"
grep -qa 'hunter2' "$dir/recovered.dcap" && wrong "the password is in the bytes after scrubbing"
grep -q 'alice' <("$bin" export "$dir/recovered.dcap") || wrong "scrubbing removes more than it was asked for"
"$bin" info --json "$dir/recovered.dcap" | jq -e '.complete and .events > 10' >/dev/null || # settled, if it held stacks
	wrong "a scrubbed capture is whole"
expect 1 "not a ring" recover "$dir/conf"
head -c 100 "$ring" >"$dir/cut.ring"
expect 1 "not a ring, or cut within its header" recover "$dir/cut.ring"
head -c 200000 "$ring" >"$dir/cut.ring"
expect 1 "shorter than its header says: it was truncated" recover "$dir/cut.ring"
expect 1 "No such file" recover "$dir/none.ring"

# --- damaged captures: what is whole is read, the rest is named, and the exit status says so ---

size=$(stat -c %s "$capture")
head -c $((size - 100)) "$capture" >"$dir/cut.dcap"
for c in info show export; do
	"$bin" $c "$dir/cut.dcap" >"$dir/out" 2>"$dir/err"
	[[ $? == 2 && -s $dir/out && -s $dir/err ]] || wrong "$c of a cut capture: $(cat "$dir/err")"
	grep -qv "^dashcam $c: '$dir/cut.dcap': " "$dir/err" && wrong "$c: every line names the file: $(cat "$dir/err")"
done
"$bin" settle "$dir/cut.dcap" >"$dir/out" 2>"$dir/err"
[[ $? == 2 && ! -s $dir/out ]] && grep -q "no end block" "$dir/err" || wrong "settle of a cut capture that is settled: $(cat "$dir/out" "$dir/err")"
"$bin" settle --json "$dir/cut.dcap" 2>/dev/null | jq -e '.[0].already and .[0].damaged' >/dev/null || wrong "settle --json of a cut capture"
"$bin" why "$dir/cut.dcap" >"$dir/out" 2>/dev/null
[[ $? == 2 ]] || wrong "why of a cut capture"
holds "$dir/out" 'the file is damaged, there was more$'
lacks "$dir/out" 'nothing was lost|had no span open$|no other thread had'
cp "$dir/cut.dcap" "$dir/cut2.dcap"
expect 2 "from a damaged capture: 1 fault, what was hit is not here" scrub "$dir/cut2.dcap" --arg user
"$bin" info --json "$dir/cut.dcap" 2>/dev/null | jq -e '.faults | length > 0' >/dev/null || wrong "faults in JSON"
printf '\x7e' | dd of="$dir/cut.dcap" bs=1 seek=68 conv=notrunc 2>/dev/null
"$bin" info "$dir/cut.dcap" >"$dir/out" 2>"$dir/err"
[[ $? == 1 || $? == 2 ]] || wrong "a spoiled first block: $(cat "$dir/err")"

# --- captures of a newer program: read where it says that they can be, else refused, and never removed to make room ---

newer=$DASHCAM_BUILD/tests/newer_format
mkdir "$dir/newer"
cp "$capture" "$dir/newer/readable.dcap"
cp "$capture" "$dir/newer/strange.dcap"
"$newer" "$dir/newer/readable.dcap" 7 0xf0 0 && "$newer" "$dir/newer/strange.dcap" 7 0 0x8 || wrong "newer_format"
"$bin" export "$capture" >"$dir/jsonl"
"$bin" export "$dir/newer/readable.dcap" 2>"$dir/err" | cmp - "$dir/jsonl" || wrong "a newer format that can be read is read"
[[ ! -s $dir/err ]] || wrong "... without complaints: $(cat "$dir/err")"
for c in info show export "scrub --arg s"; do
	# shellcheck disable=SC2086
	expect 1 "'$dir/newer/strange.dcap': capture of format 7 uses features .* newer dashcam" $c "$dir/newer/strange.dcap"
	[[ ! -s $dir/out ]] || wrong "$c prints nothing of what it does not understand"
done
expect 1 "'missing.dcap': no such file; 'dashcam ls' lists the captures" settle missing.dcap
expect 1 "is of a newer format: settle it with a newer dashcam; it stays as it is" settle "$dir/newer/strange.dcap"
"$bin" ls --store "$dir/newer" >"$dir/out" || wrong "ls of newer captures"
holds "$dir/out" ' newer format +strange.dcap'
holds "$dir/out" ' (raw|settled) +readable.dcap'
"$bin" ls --json --store "$dir/newer" | jq -e 'map(select(.newer)) | length == 1 and (.[0].damaged | not)' >/dev/null || wrong "ls --json of newer captures"
"$newer" "$dir/newer/strange.dcap" 7 0 0
"$bin" export "$dir/newer/strange.dcap" | cmp - "$dir/jsonl" || wrong "nothing was changed in what was refused"

# --- the ring directory is removed under a watcher: it keeps what it has, and moves into the next one ---

gone=$rings/gone
mkdir -m 0700 "$gone"
DASHCAM_DIR=$gone "$bin" watch --out "$dir/gone" 2>"$dir/gone.err" &
pids+=($!)
DASHCAM_DIR=$gone "$guest" burst 10 sleep 20000 &
before=$!
pids+=("$before")
until_true bash -c "'$bin' status --dir '$gone' --json 2>/dev/null | jq -e '.processes[0].watcher_pid > 0' >/dev/null"
rm -rf "$gone"
until_true grep -q "'$gone' was removed" "$dir/gone.err"
DASHCAM_DIR=$gone "$guest" burst 10 sleep 20000 &
after=$!
pids+=("$after")
until_true grep -q "'$gone' is there again" "$dir/gone.err"
until_true bash -c "'$bin' status --dir '$gone' --json 2>/dev/null | jq -e '.processes[0].watcher_pid > 0' >/dev/null"
for pid in "$before" "$after"; do
	[[ -s $("$bin" trigger --dir "$gone" --pid "$pid" --wait) ]] || wrong "both are watched: $(cat "$dir/gone.err")"
done
expect 1 "watched already" watch --dir "$gone"
rm -rf "$gone"
mkdir -m 0700 "$gone"
again() { (($(grep -c "there again" "$dir/gone.err") == 2)); }
until_true again

# --- not ours to read ---

if [[ $EUID == 0 ]] && chmod 0711 "$dir" && command -v setpriv >/dev/null; then
	cp "$bin" "$dir/dashcam" && chmod 0755 "$dir/dashcam"
	chmod 0600 "$capture"
	setpriv --reuid 65534 --regid 65534 --clear-groups "$dir/dashcam" info "$capture" >"$dir/out" 2>"$dir/err"
	[[ $? == 1 ]] && grep -q "permission denied; a capture can be read by its owner and root only" "$dir/err" ||
		wrong "another user's capture: $(cat "$dir/err")"
	mkdir -m 0700 "$dir/closed"
	for c in info keep rm; do
		setpriv --reuid 65534 --regid 65534 --clear-groups "$dir/dashcam" $c "$dir/closed/x.dcap" 2>"$dir/err"
		grep -qi "permission denied" "$dir/err" || wrong "$c in a closed directory: $(cat "$dir/err")"
	done
	mkdir -m 0755 "$dir/theirs"
	install -d -m 0700 -o 65534 -g 65534 "$rings/theirs" && chmod 0711 "$rings"
	setpriv --reuid 65534 --regid 65534 --clear-groups env DASHCAM_DIR="$rings/theirs" "$dir/dashcam" run --out "$dir/theirs" -- true >"$dir/out" 2>"$dir/err"
	[[ $? == 1 && $(wc -l <"$dir/err") == 1 ]] && grep -q "'$dir/theirs': cannot write to it: Permission denied" "$dir/err" ||
		wrong "a place that cannot take captures is told at once: $(cat "$dir/err")"

	if unshare -m true 2>/dev/null; then
		mkdir "$dir/tiny"
		unshare -m sh -c 'mount -t tmpfs -o size=1m none "$0" && DASHCAM_DIR=$0 exec "$@"' "$dir/tiny" \
			"$bin" run --sample off -- "$app" >"$dir/out" 2>"$dir/err"
		holds "$dir/err" "recorded nothing \('$dir/tiny' has no room for a ring, see 'dashcam doctor'\), nor was it sampled"
	fi

	# A watcher of root in a directory of all: users see their own, and pass to it.
	mkdir -m 1777 "$rings/all" && chmod 1777 "$rings/all" && chmod 0711 "$rings"
	user() { setpriv --reuid 65534 --regid 65534 --clear-groups env DASHCAM_DIR="$rings/all" HOME=/ "$dir/dashcam" "$@"; }
	export DASHCAM_DIR=$rings/all
	"$bin" watch --out "$dir/all/captures" 2>"$dir/all.err" &
	pids+=($!)
	until_true grep -qs "save the past now" "$dir/all.err"
	[[ $(stat -c %a "$dir/all/captures") == 711 ]] || wrong "captures of all are closed to who owns them"
	"$guest" burst 10 sleep 20000 & # root's
	pids+=($!)
	until_true bash -c "ls '$rings/all' | grep -q 'ring$'"
	user status >"$dir/out" 2>"$dir/err" || wrong "status of a user: $(cat "$dir/err")"
	[[ ! -s $dir/err ]] || wrong "rings of others are no news: $(cat "$dir/err")"
	lacks "$dir/out" guest
	user watch >"$dir/out" 2>"$dir/err" && wrong "a second watcher, of a user"
	holds "$dir/err" "is watched already, by process ${pids[-2]}"
	DASHCAM_DIR=$rings
fi

# --- selftest ---

"$bin" selftest >"$dir/out" 2>"$dir/err" || wrong "selftest: $(cat "$dir/out" "$dir/err")"
"$bin" selftest --json | jq -e '(.checks | length >= 7) and .state != "Failed"' >/dev/null || wrong "selftest --json"

judge
