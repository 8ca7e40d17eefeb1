#!/bin/bash
# SPDX-License-Identifier: MIT
# A program of 50 threads stuck in many ways (tests/deadlock.c): the stacks in its capture are those that eu-stack and gdb
# find in the living process, frame by frame; also when it is stopped, and when its binary was replaced before it was saved.
source "$(dirname "$0")/e2e.sh"
print=$DASHCAM_BUILD/tests/print_stacks

command -v eu-stack >/dev/null || { echo "skipped: no eu-stack"; exit 77; }
# What a sanitizer adds to a program stands between its frames.
nm "$DASHCAM_BUILD/tests/deadlock" | grep -qE '__(asan|tsan)_' && { echo "skipped: instrumented build"; exit 77; }

start() { # PROGRAM: until it is stuck
	: >"$dir/said"
	"$bin" run --sample off --out "$dir/out" -- "$1" >"$dir/said" 2>"$dir/log" &
	run=$!
	until_true grep -q stuck "$dir/said"
	pid=$(pid_of)
	sleep 0.2 # its main thread goes on to wait in a signal handler
}

settled() { "$print" "$1" >"$dir/ours" 2>/dev/null && grep -q 0x "$dir/ours"; }

save() { # leaves the capture's name in $capture, and what is in it in $dir/ours
	capture=$("$bin" trigger --pid "$pid" --wait) || wrong "trigger: $(cat "$dir/log")"
	until_true settled "$capture"
	[[ $(grep -c ^TID "$dir/ours") == 50 ]] || wrong "$(grep -c ^TID "$dir/ours") threads instead of 50"
}

finish() {
	kill -9 "$pid"
	wait "$run"
	run=
	rm -rf "$dir/out"
}

# TID and address, one line a physical frame.
addresses() {
	awk '$1 == "TID" { tid = $2; sub(":", "", tid) } { for (i = 1; i <= 2; i++) if ($i ~ /^0x/) { print tid, $i; next } }' "$1" |
		sort -s -k1,1n
}

# TID, address, functions at it from the innermost to the outermost. gdb shows frames that are no more, of calls in tail
# position: an address that is not among ours, with all that was inlined there, is left out. What gdb and the symbol table
# call differently: the trampoline of signals, and functions written in assembler, which have several names.
same_names() { # functions of ours, of gdb's
	awk -v ours="$dir/ours" '
		function tidy(f) { sub(/^_+/, "", f); sub(/^GI__*/, "", f); sub(/[.](constprop|isra|part|cold).*/, "", f); return f }
		BEGIN {
			while ((getline line < ours) > 0) {
				split(line, w, " ")
				if (w[1] == "TID") { tid = w[2]; n[tid] = 0; continue }
				if (w[1] != "-") { at[tid, w[1]] = 1; if (!n[tid]) first[tid] = w[1] }
				name[tid, ++n[tid]] = w[2]
			}
		}
		/^Thread / { match($0, /LWP [0-9]+/); tid = substr($0, RSTART + 4, RLENGTH - 4); k = 0; keep = 1; threads++; next }
		/^#/ {
			sub(/^#[0-9]+ +/, "")
			if ($0 ~ /^0x/) { keep = (tid, $1) in at; sub(/^0x[0-9a-f]+ in /, "") }
			if (!keep) next
			f = /^<signal handler/ ? "restore_rt" : $1
			want = name[tid, ++k]
			if (tidy(f) != tidy(want)) { print "thread " tid ", function " k ": " want ", gdb says " f; bad++ }
			seen++
		}
		END {
			for (t in n) total += n[t]
			if (threads != 50 || seen != total) print threads " threads, " seen " functions in gdb, " total " in the capture"
			else if (!bad) print "same " seen > "/dev/stderr"
		}' "$1"
}

compare() { # WHAT
	eu-stack -p "$pid" >"$dir/theirs" 2>/dev/null
	addresses "$dir/ours" >"$dir/a"
	addresses "$dir/theirs" >"$dir/b"
	(($(wc -l <"$dir/b") > 500)) || wrong "$1: eu-stack found only $(wc -l <"$dir/b") frames"
	diff "$dir/a" "$dir/b" >"$dir/difference" || wrong "$1: not what eu-stack finds: $(head -n 20 "$dir/difference")"
	echo "$1: $(wc -l <"$dir/a") frames of 50 threads compared with eu-stack"
}

# --- as it is ---

start "$DASHCAM_BUILD/tests/deadlock"
save
compare "stuck"
grep -q ' descend$' "$dir/ours" || wrong "no function has a name"
if command -v gdb >/dev/null; then
	gdb -nx -batch -p "$pid" -ex 'set backtrace past-main on' -ex 'set width 0' -ex 'thread apply all bt' >"$dir/gdb" 2>/dev/null
	said=$(same_names "$dir/gdb" 2>"$dir/same")
	[[ -z $said ]] || wrong "not what gdb says: $(head -n 20 <<<"$said")"
	echo "stuck: $(sed 's/same //' "$dir/same") functions compared with gdb"
fi

# --- stopped: it stays so ---

kill -STOP "$pid"
save
[[ $(awk '$1 == "State:" { print $2 }' "/proc/$pid/status") == T ]] || wrong "a stopped process was set going"
compare "stopped"
kill -CONT "$pid"
finish

# --- its binary replaced by another while it ran, and deleted ---

for how in replaced deleted; do
	cp "$DASHCAM_BUILD/tests/deadlock" "$dir/program"
	start "$dir/program"
	if [[ $how == replaced ]]; then
		cp /bin/true "$dir/other"
		mv "$dir/other" "$dir/program"
	else
		rm "$dir/program"
	fi
	save
	(($(grep -c ' descend$' "$dir/ours") > 100)) || wrong "$how: functions of the program have no names: $(head -n 30 "$dir/ours")"
	finish
	rm -f "$dir/program"
done

judge
