#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Twenty things that go wrong in services, ordered from the demo server one at a time: with the default rules alone at least
# sixteen are captured, each by a rule that fits, and a healthy server under the same load gives no capture at all.
#
#   tests/e2e_faults.sh                  all of them, two at a time, and ten clean minutes: about 17 minutes; so it is with
#                                        tests/run --long. Otherwise tests/run takes two that need no getting used to
#   tests/e2e_faults.sh NAME...          only these; "clean" is the healthy server
#   CLEAN_SECONDS=60 tests/e2e_faults.sh clean
#
# Prints a line a fault: noticed or not, after how long, by which rule, in which words.
set -u -o pipefail
cd "${DASHCAM_SOURCE:-$(dirname "${BASH_SOURCE[0]}")/..}" || exit 1

build=${DASHCAM_BUILD:-build}
dashcam=$build/tools/dashcam
work=$(mktemp -d)
cgroups=/sys/fs/cgroup
warm_s=15
patience_s=20
trap 'stop_all; rm -rf "$work"' EXIT

# fault|rules that name it rightly|what it is
faults='
lock-convoy|unusual,slower|readers sleep with a lock
slow-disk|unusual,slower|500 ms a journal record
dns-wait|unusual,slower|the resolver does not answer
thread-leak|thread|a thread a request
memory-growth|memory|64 KiB a request
fd-leak|descriptors|a descriptor a request
busy-loop|open|one request spins
lost-wakeup|silent,open|the indexer is not told
queue-growth|unusual,slower|jobs take 200 ms
retry-storm|unusual,slower|asked again and again
deadlock|open|two shards, two orders
slow-route|slower,unusual|GET /stats walks everything
gc-pause|unusual|all shards locked
crash|signal|a null pointer
fork-bomb|unusual,slower|a hundred spinning children
clock-step|silent,open|an hour ahead
log-storm|log|two hundred errors a request
oom-kill|signal|memory limit of its cgroup
stopped|stopped|SIGSTOP
throttled|unusual,slower|1 % of a CPU by its cgroup
'

say() { printf '%s\n' "$*"; }
# The server is stopped by the id it has, whatever became of it.
stop_all() { for f in "$work"/*/server.pid; do [ -e "$f" ] && kill -KILL "$(cat "$f")" 2>/dev/null; done; }
gone() { ! kill -0 "$1" 2>/dev/null; }
await() { local until=$((SECONDS + $1)); shift; until "$@"; do [ $SECONDS -lt $until ] || return 1; sleep 0.1; done; }
listening() { grep -qs '^listening on ' "$1/log"; }
captured() { compgen -G "$1/out/*.dcap" >/dev/null; }

# A cgroup of its own, in either version. group_make NAME CONTROLLER -> directory on stdout
group_make() {
	local dir
	if [ -d "$cgroups/$2" ]; then dir=$cgroups/$2/dashcam-$1-$$; else dir=$cgroups/dashcam-$1-$$; fi
	mkdir "$dir" 2>/dev/null && echo "$dir"
}
group_set() { # DIR V2FILE V2VALUE V1FILE V1VALUE [V1FILE V1VALUE]
	local dir=$1
	if [ -e "$dir/$2" ]; then echo "$3" >"$dir/$2"; return; fi
	shift 3
	while [ $# -gt 0 ]; do echo "$2" >"$dir/$1" || return; shift 2; done
}

order() {
	local name=$1 dir=$2 port=$3 pid=$4 group
	case $name in
	stopped) kill -STOP "$pid" ;;
	oom-kill)
		group=$(group_make oom memory) && echo "$pid" >"$group/cgroup.procs" &&
			group_set "$group" memory.max 96M memory.limit_in_bytes 96M && echo "$group" >>"$dir/groups"
		post "$port" memory-growth ;;
	throttled)
		group=$(group_make cpu cpu) &&
			group_set "$group" cpu.max '4000 400000' cpu.cfs_period_us 400000 cpu.cfs_quota_us 4000 &&
			echo "$pid" >"$group/cgroup.procs" && echo "$group" >>"$dir/groups" ;;
	memory-growth)
		group=$(group_make growth memory) && echo "$pid" >"$group/cgroup.procs" &&
			group_set "$group" memory.max 192M memory.limit_in_bytes 192M && echo "$group" >>"$dir/groups"
		post "$port" "$name" ;;
	*) post "$port" "$name" ;;
	esac
}

post() {
	exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf 'POST /fault/%s HTTP/1.1\r\nConnection: close\r\n\r\n' "$2" >&3
	timeout 2 cat <&3 >/dev/null
	exec 3>&-
}

# run_server DIR SECONDS: recorded with the default rules; leaves its pid and port in DIR
run_server() {
	local dir=$1
	mkdir -p "$dir/out"
	# limits as a careful service manager sets them: rules that are relative to them need no numbers
	(ulimit -n 256; ulimit -u 400; ulimit -v 1200000
	exec "$dashcam" run --out "$dir/out" --dir "$dir/rings" -- "$build"/tools/demo.d/kvserver --fill 8192 --workers 2 --slow-ms 600000 \
		--journal "$dir/journal" --faults) >"$dir/log" 2>&1 &
	echo $! >"$dir/run.pid"
	disown # or bash tells of each that is killed, which is what they are here for
	await 10 listening "$dir" || { say "$dir: the server did not start"; cat "$dir/log"; return 1; }
	sed -n 's/^listening on //p' "$dir/log" >"$dir/port"
	cut -d' ' -f1 "/proc/$(cat "$dir/run.pid")/task/$(cat "$dir/run.pid")/children" >"$dir/server.pid"
	[ -s "$dir/server.pid" ] || { say "$dir: no server below $(cat "$dir/run.pid")"; return 1; }
	"$build"/tools/demo.d/kvclient --port "$(cat "$dir/port")" --rate 500 --threads 8 --swing 20 --seconds "$2" >"$dir/client" 2>&1 &
	echo $! >"$dir/client.pid"
	disown
}

end_server() {
	local dir=$1
	kill -KILL "$(cat "$dir/client.pid")" 2>/dev/null
	kill -KILL "$(cat "$dir/server.pid")" 2>/dev/null
	await 60 gone "$(cat "$dir/run.pid")"
	[ -e "$dir/groups" ] && while read -r group; do rmdir "$group" 2>/dev/null; done <"$dir/groups"
}

# one NAME PATTERN WHAT: a line in DIR/result, "+" before it when it was noticed by a rule that fits
one() {
	local name=$1 pattern=$2 what=$3 dir=$work/$1 began file rule
	run_server "$dir" $((warm_s + patience_s + 5)) || { say "- $name: no server" >"$dir/result"; return; }
	sleep "$warm_s"
	if captured "$dir"; then
		say "- $name: captured before anything went wrong: $("$dashcam" why "$dir"/out/*.dcap | head -n 2 | tr '\n' ' ')" >"$dir/result"
		end_server "$dir"
		return
	fi
	began=$(date +%s%3N)
	order "$name" "$dir" "$(cat "$dir/port")" "$(cat "$dir/server.pid")"
	if await "$patience_s" captured "$dir"; then
		began=$(($(date +%s%3N) - began))
		sleep 1
		file=$(compgen -G "$dir/out/*.dcap" | head -n 1)
		rule=$("$dashcam" info --json "$file" | sed -n 's/.*"rule": *"\([^"]*\)".*/\1/p' | head -n 1)
		# memory that grows is noticed by the rule about it, or by the kernel
		if [ "$name" = memory-growth ]; then pattern='memory|signal'; fi
		if grep -qE "${pattern//,/|}" <<<"$rule"; then mark=+; else mark=-; fi
		what="$what: after $began ms by '$rule': $("$dashcam" why "$file" | sed -n 2,3p | tr '\n' ' ' | tr -s ' ')"
		end_server "$dir" # only now: its death is an incident too
		say "$mark $name: $what" >"$dir/result"
	else
		say "- $name ($what): not noticed in $patience_s s" >"$dir/result"
		end_server "$dir"
	fi
}


names=("$@")
if [ $# = 0 ] && [ -n "${DASHCAM_BUILD:-}" ] && [ -z "${DASHCAM_LONG:-}" ]; then
	names=(crash deadlock)
	warm_s=3
fi
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(awk -F'|' 'NF { print $1 }' <<<"$faults"; echo clean)
asked=0 noticed=0 failed=0 running=()
for name in "${names[@]}"; do
	[ "$name" != clean ] || continue
	line=$(grep "^$name|" <<<"$faults") || { say "no fault is named '$name'"; exit 2; }
	IFS='|' read -r _ pattern what <<<"$line"
	one "$name" "$pattern" "$what" &
	asked=$((asked + 1))
	running+=("$!")
	if [ ${#running[@]} -ge 2 ]; then wait "${running[0]}"; running=("${running[@]:1}"); fi
done
for pid in "${running[@]:-}"; do [ -n "$pid" ] && wait "$pid"; done
for name in "${names[@]}"; do
	[ "$name" != clean ] || continue
	cat "$work/$name/result"
	if grep -q '^+' "$work/$name/result"; then noticed=$((noticed + 1)); fi
done
if [ $asked -gt 0 ]; then say "faults noticed by the right rule: $noticed of $asked; bar 16 of 20"; fi
[ $((noticed * 20)) -ge $((asked * 16)) ] || failed=1

if [[ " ${names[*]} " == *' clean '* ]]; then
	dir=$work/clean seconds=${CLEAN_SECONDS:-600}
	run_server "$dir" "$seconds" || exit 1
	await $((seconds + 60)) gone "$(cat "$dir/client.pid")"
	false_alarms=$(find "$dir/out" -name '*.dcap' | wc -l)
	end_server "$dir"
	say "clean for $seconds s, $(cat "$dir/client"): $false_alarms captures; bar 0"
	[ "$false_alarms" = 0 ] || { failed=1; for f in "$dir"/out/*.dcap; do "$dashcam" why "$f"; done; }
fi
exit $failed
