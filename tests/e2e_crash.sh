#!/bin/bash
# SPDX-License-Identifier: MIT
# Every way to die (tests/crasher.c), under `dashcam run` and without: the same status, the same core; the capture names the
# signal, the function that faulted and its caller; and the process is not much later dead than it would have been.
source "$(dirname "$0")/e2e.sh"
app=$DASHCAM_BUILD/tests/crasher
cd "$dir" || exit 1 # cores
ulimit -S -c 0

nm "$app" | grep -qE '__(asan|tsan)_' && { echo "skipped: instrumented build"; exit 77; }

# Status of a command that may die of a signal, and of nothing else.
status_of() { bash -c '"$@"; exit $?' - "$@" 2>/dev/null >&2; echo $?; }

# JSON: signal, innermost function, its caller. No crash: only how the process ended.
told() {
	"$bin" info "$1" --json | python3 -c '
import json, sys
d = json.load(sys.stdin)
def find(v, key):
	if isinstance(v, dict):
		if key in v: return v[key]
		v = list(v.values())
	if isinstance(v, list):
		for e in v:
			f = find(e, key)
			if f: return f
	return None
c = find(d, "crash")
if not c:
	print("-", "-", "-")
else:
	f = [x.get("function") or "?" for x in c["frames"]]
	print(c["signal"], *(f + ["-", "-"])[:12])
'
}

# way WAY SIGNAL STATUS FUNCTIONS...: the innermost ones, "*" for any number in between, "-" for no crash noted
way() {
	local name=$1 signal=$2 status=$3 file got
	shift 3
	rm -rf out
	[[ $(status_of "$app" "$name") == "$status" ]] || wrong "$name by itself: $(status_of "$app" "$name")"
	[[ $(DASHCAM=0 status_of "$app" "$name") == "$status" ]] || wrong "$name with DASHCAM=0"
	got=$(status_of "$bin" run --out out -- "$app" "$name")
	[[ $got == "$status" ]] || wrong "$name under run: status $got instead of $status"
	file=$(find out -name '*.dcap' 2>/dev/null | head -1)
	[[ $file ]] || { wrong "$name: no capture"; return; }
	got=$(told "$file")
	# shellcheck disable=SC2053 # a pattern
	[[ $got == $signal" "$* ]] || wrong "$name: '$got' instead of '$signal $*'"
	printf '%-16s %s\n' "$name" "$got"
}

way read SIGSEGV 139 die_read main '*'
way call SIGSEGV 139 '*' call_die_call main '*'
way overflow SIGSEGV 139 die_overflow die_overflow '*'
way overflow_thread SIGSEGV 139 die_overflow die_overflow '*'
way free SIGABRT 134 '*abort' '*free' call_die_free main '*'
way abort SIGABRT 134 '*abort' die_abort main '*'
way in_handler SIGSEGV 139 die_read on_user '*' call_die_in_handler main '*'
way handler_other SIGFPE 136 die_divide on_fault_divide '*' call_die_handler_other main '*'
way handler_same - 139 '-' '-' # handled by the app, and blocked when it faults again: nobody is asked
way child SIGSEGV 139 die_read die_in_child '*'
way child_recorded SIGSEGV 139 die_read die_in_child '*'
way eight SIGSEGV 139 die_read together '*'
way sent SIGSEGV 139 die_computing '*' main '*'
way divide SIGFPE 136 die_divide main '*'
way bus SIGBUS 135 die_bus call_die_bus main '*'
way illegal SIGILL 132 die_illegal main '*'

# What a terminal would obey is not passed on from names.
evil=$'e\e[31m\x9bvil'
cp "$DASHCAM_BUILD/tests/spinner" "$evil"
"$bin" run --sample 199 --on-exit --out evil -- "./$evil" 9 1 2>said >/dev/null
"$bin" export evil/*.dcap -f folded -o folded || wrong "export of what has an odd name"
grep -q 'vil.*main' folded || wrong "folded: $(head -c 300 folded | cat -v)"
grep -q 'no recorder inside' said || wrong "said: $(cat -v said)"
LC_ALL=C grep -qP '\x1b|\x9b' said folded && wrong "escapes are passed on: $(head -c 300 said folded | cat -v)"

# How long after the fault a process is dead that its watcher has known for a while, and that therefore waits for it (50 ms
# at most); medians of 7, which die one after the other.
cat >late.py <<'END'
import os, statistics, struct, subprocess, sys, time
bin, app = sys.argv[1:]
def dead(pid):
	try: return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] in "ZX"
	except OSError: return True
def command_of(pid): # the command of dashcam run is its child
	while not (children := open(f"/proc/{pid}/task/{pid}/children").read().split()): time.sleep(0.001)
	return int(children[0])
def delays(run):
	started = [subprocess.Popen(run + [app, "read", f"at{i}", str(1200 + 200 * i)], stderr=subprocess.DEVNULL) for i in range(7)]
	left = {i: command_of(p.pid) if run else p.pid for i, p in enumerate(started)}
	late = []
	while left:
		for i in [i for i in left if dead(left[i])]:
			now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
			late.append((now - struct.unpack("q", open(f"at{i}", "rb").read())[0]) / 1e6)
			del left[i]
		time.sleep(0.0002)
	for p in started: p.wait()
	return late
without, with_ = delays([]), delays([bin, "run", "--out", "late", "--"])
a, b = statistics.median(without), statistics.median(with_)
print(f"dead after the fault, median of 7: {a:.1f} ms alone, {b:.1f} ms under dashcam run (worst {max(with_):.1f})")
sys.exit(b - a > 50)
END
python3 late.py "$bin" "$app" || wrong "dies too late"

# The core is the same: frames and what the signal says.
core_of() { # COMMAND...: leaves what gdb says of it in $dir/said
	rm -f core core.*
	(ulimit -S -c unlimited; "$@") >/dev/null 2>&1
	local core
	core=$(find . -maxdepth 1 -name 'core*' | head -1)
	[[ $core ]] || return 1
	gdb -batch -nx -iex 'set debuginfod enabled off' -ex bt -ex 'print $_siginfo.si_signo' -ex 'print $_siginfo.si_code' \
		-ex 'print $_siginfo._sifields._sigfault.si_addr' "$app" "$core" 2>/dev/null |
		sed -n '/^#0/,$p' | sed -E 's/0x[0-9a-f]{8,}/ADDR/g; s/^([$]3 = .*)0x[0-9a-f]{2,}$/\1SENDER/' >said
}
if [[ $(cat /proc/sys/kernel/core_pattern) == core ]] && command -v gdb >/dev/null && DASHCAM=0 core_of "$app" read; then
	for name in read call divide bus abort in_handler; do
		DASHCAM=0 core_of "$app" "$name"
		mv said alone
		core_of "$bin" run --out out -- "$app" "$name" || wrong "$name: no core under run"
		diff alone said >differs || wrong "$name: another core: $(cat differs)"
	done
	echo "cores: the same"
else
	echo "cores: cannot be compared here"
fi

judge
