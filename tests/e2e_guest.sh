#!/bin/bash
# SPDX-License-Identifier: MIT
# Programs that sample themselves, because the kernel does not let anybody else: told to, not dumpable, perf refused; and one
# that must not be asked. Those that are not dumpable and find a watcher when they start hand it their perf events instead.
# And stacks of events that a program copies, since frame pointers lead nowhere.
source "$(dirname "$0")/e2e.sh"
app=$DASHCAM_BUILD/tests/sampled

holding() { grep -qE -- "$2" "$1"; }

# sampled DIR LEAST: it has so many samples of both threads, by themselves, about three quarters in function_that_computes
sampled() {
	local file share samples
	file=$(capture_in "$1")
	"$bin" info "$file" >"$dir/out" || wrong "info $file"
	holds "$dir/out" 'sampled +by its own timers, [0-9]+ Hz, copying 8.0 KiB of stack; [12] of [12] threads that record; '
	[[ $("$bin" info "$file" --json | jq '.processes[0].samples.scope') == 3 ]] || wrong "scope of $file"
	"$bin" report "$file" hot-functions >"$dir/out" || wrong "report $file hot-functions"
	samples=$(sed -nE '1s/.*of CPU in ([0-9]+) samples.*/\1/p' "$dir/out")
	((${samples:-0} >= $2)) || wrong "samples of $file: $(head -1 "$dir/out")"
	share=$(sed -nE 's/^ *([0-9]+)\.[0-9] % .*function_that_computes.*/\1/p' "$dir/out")
	((${share:-0} >= 55 && ${share:-0} <= 92)) || wrong "share of function_that_computes: $(cat "$dir/out")"
	"$bin" export "$file" -f folded -o "$dir/folded" || wrong "export -f folded"
	holds "$dir/folded" 'main;work;function_that_computes'
	(($("$bin" report "$file" threads | grep -c sampled) >= 1)) || wrong "threads of $file"
	"$bin" show "$file" --stacks >"$dir/out" || wrong "show --stacks"
	holds "$dir/out" 'on-cpu +function_that_(computes|helps) <- work'
}

# run NAME COMMAND...: in the background; its status and what it says in files
run() {
	local name=$1
	shift
	(
		"$@" 2>"$dir/$name.err"
		echo $? >"$dir/$name.status"
	) &
	runs+=($!)
}

runs=()
run told "$bin" run --stacks guest --sample 199 --out "$dir/told" -- "$app" 2200
run filtered "$bin" run --stacks guest --out "$dir/filtered" -- "$app" 1800 filtered
run stacks "$bin" run --sample off --out "$dir/stacks" -- "$app" stacks
run noperf "$app" noperf "$bin" run --sample 199 --out "$dir/noperf" -- "$app" 2200
wait "${runs[@]}"

# Told to, after the second that programs are given to close themselves in.
[[ $(<"$dir/told.status") == 0 ]] || wrong "run --stacks guest: $(cat "$dir/told.err")"
holds "$dir/told.err" 'is asked to sample itself: left to programs that record'
sampled "$dir/told" 20

# Stacks of events, where there are no frame pointers: copied and unwound, whoever samples; out of a ring alone, too.
[[ $(<"$dir/stacks.status") == 0 ]] || wrong "run of DC_STACK(): $(cat "$dir/stacks.err")"
mkdir "$rings/dead" "$dir/recovered"
DASHCAM_DIR=$rings/dead "$app" stacks
"$bin" recover --output "$dir/recovered/a.dcap" "$rings"/dead/*.ring >"$dir/out" 2>&1 || wrong "recover: $(cat "$dir/out")"
"$bin" settle "$dir/recovered/a.dcap" >"$dir/out" 2>&1 || wrong "settle: $(cat "$dir/out")"
for of in stacks recovered; do
	same_calls "$(capture_in "$dir/$of")" "jsonl chrome folded pprof"
	holds "$dir/calls" '^fifth <- fourth <- third <- second <- first <- take_stacks <- main <- '
	holds "$dir/calls" '^fifth <- fourth <- third <- second <- first <- in_thread <- '
done

# No program is killed by its own filter: it is not asked, and the capture says so.
status=$(<"$dir/filtered.status")
if [[ $status != 77 ]]; then
	[[ $status == 0 ]] || wrong "a program with a filter dies of being watched: $status, $(cat "$dir/filtered.err")"
	"$bin" info "$(capture_in "$dir/filtered")" >"$dir/out"
	holds "$dir/out" 'sampled +not at all: it has a seccomp filter of its own'
fi

# Perf refused, as in a container: the same. The filter that refuses it is everybody's, and no reason not to.
if [[ $(<"$dir/noperf.status") != 77 ]]; then
	[[ $(<"$dir/noperf.status") == 0 ]] || wrong "run without perf: $(cat "$dir/noperf.err")"
	holds "$dir/noperf.err" 'is asked to sample itself: '
	sampled "$dir/noperf" 20
fi

# Not dumpable: its user's watcher may not open events for it, nor look into it, nor stop its threads, and says so.
if ((EUID == 0)) && command -v setpriv >/dev/null; then
	mkdir "$dir/user" "$rings/user"
	chmod 755 "$dir" "$rings"
	chown 65534:65534 "$dir/user" "$rings/user"
	chmod 700 "$rings/user"
	cp "$bin" "$app" "$dir/user/"
	user=(setpriv --reuid 65534 --regid 65534 --clear-groups env DASHCAM_DIR="$rings/user" XDG_STATE_HOME="$dir/user/state")
	"${user[@]}" "$dir/user/sampled" 60000 closed &
	asked=$!
	pids+=("$asked")
	sleep 0.2
	"${user[@]}" "$dir/user/dashcam" watch --sample 199 --out "$dir/user/captures" 2>"$dir/err" &
	pids+=($!)
	# Two that start while it watches; one may have the kernel's side of its own switches. Where users may sample anything.
	until_true holding "$dir/err" 'watching'
	handed=()
	if holding "$rings/user/watch.lock" '^handover 1 199 '; then
		handed=(later able)
		DASHCAM_NAME=later "${user[@]}" "$dir/user/sampled" 60000 closed &
		later=$!
		may=(--inh-caps +perfmon --ambient-caps +perfmon)
		setpriv --reuid 65534 "${may[@]}" true 2>/dev/null || may=()
		DASHCAM_NAME=able setpriv --reuid 65534 --regid 65534 --clear-groups "${may[@]}" "${user[@]:6}" \
			"$dir/user/sampled" 60000 closed &
		able=$!
		pids+=("$later" "$able")
	fi
	until_true holding "$dir/err" 'is asked to sample itself: the kernel refuses perf events'
	sleep 0.8
	"${user[@]}" "$dir/user/dashcam" status >"$dir/out"
	holds "$dir/out" 'sampled.[0-9]+.: is sampled at 199 Hz: 2 of 2 threads that record; the kernel refuses'
	for of in "${handed[@]}"; do
		holds "$dir/out" "$of.[0-9]+.: is sampled at 199 Hz: the process handed its events over"
		lacks <(ls -l "/proc/${!of}/fd") 'perf_event|socket'
	done
	if [[ ${handed[*]} ]]; then # what was sampled of it stays
		kill -KILL "$later"
		wait "$later" 2>/dev/null
	fi
	for of in asked "${handed[@]}"; do
		"${user[@]}" "$dir/user/dashcam" trigger --pid "${!of}" --wait >"$dir/out" 2>&1 || wrong "trigger: $(cat "$dir/out" "$dir/err")"
		grep -oE '/[^ ]*dcap' "$dir/out" | head -1 >"$dir/$of"
	done
	kill "$asked" ${handed[0]:+"$able"} # settling is for idle CPUs
	for of in asked "${handed[@]}"; do
		until_true holding "$dir/err" "$(<"$dir/$of").: settled"
	done
	sampled "$(<"$dir/asked")" 20
	"$bin" info "$(<"$dir/asked")" >"$dir/out"
	holds "$dir/out" 'threads +none stopped at the trigger.*could not be'
	for of in "${handed[@]}"; do
		file=$(<"$dir/$of")
		"$bin" info "$file" >"$dir/out"
		holds "$dir/out" 'sampled +by events it opened, 199 Hz, copying 8.0 KiB of stack; the process handed its events over'
		holds "$dir/out" ' context switches, back to '
		"$bin" export "$file" -f folded -o "$dir/folded" || wrong "export -f folded"
		holds "$dir/folded" 'main;work;function_that_computes'
		"$bin" report "$file" hot-functions >"$dir/$of.hot"
	done
	if [[ ${handed[*]} ]]; then
		(($(</proc/sys/kernel/perf_event_paranoid) < 2)) || lacks "$dir/later.hot" 'samples, [1-9][0-9]* off-CPU'
		[[ -z ${may[*]} ]] || holds "$dir/able.hot" 'samples, [1-9][0-9]* off-CPU stacks'
		# the watcher wishes for them in its next home, too
		rm -rf "$rings/user"
		until_true holding "$dir/err" 'was removed'
		mkdir -m 700 "$rings/user"
		chown 65534:65534 "$rings/user"
		until_true holding "$rings/user/watch.lock" '^handover 1 199 '
		DASHCAM_NAME=moved "${user[@]}" "$dir/user/sampled" 60000 closed &
		pids+=($!)
		until_true bash -c "\"\$@\" status | grep -q 'moved.[0-9]*.: is sampled at 199 Hz: the process handed its events over'" - \
			"${user[@]}" "$dir/user/dashcam"
	fi
fi

judge
