#!/bin/bash
# SPDX-License-Identifier: MIT
# The program as people meet it first: help, wrong arguments, completion, manual pages. No process is recorded here.
source "$(dirname "$0")/e2e.sh"
docgen=$DASHCAM_BUILD/tools/docgen
pages=$DASHCAM_BUILD/tools
export DASHCAM_DIR=$dir/rings

# expect STATUS PATTERN ARG...: exit status, one line on stderr, and it says PATTERN
expect() {
	local status=$1 pattern=$2 said
	shift 2
	"$bin" "$@" >"$dir/out" 2>"$dir/err" </dev/null
	local found=$?
	said=$(cat "$dir/err")
	((found == status)) || wrong "dashcam $*: exit status $found, expected $status: $said"
	(($(wc -l <"$dir/err") == 1)) || wrong "dashcam $*: expected one line, got: $said"
	grep -qE -- "$pattern" "$dir/err" || wrong "dashcam $*: expected '$pattern', got: $said"
}

commands=$("$docgen" commands)

# Without arguments: the overview, as an error. With --help: the same, as an answer.
"$bin" >"$dir/out" 2>"$dir/err"
[[ $? == 64 && ! -s $dir/out ]] || wrong "no argument is a usage error"
"$bin" --help >"$dir/help" || wrong "--help"
cmp -s "$dir/err" "$dir/help" || wrong "both overviews are the same"
[[ $("$bin" --version) == "dashcam "[0-9]* ]] || wrong "--version"
expect 64 "unknown command 'shwo' \(did you mean 'show'\?\)" shwo
expect 64 "unknown command 'zzzzzz'" zzzzzz

for c in $commands; do
	grep -qE "^  $c +[a-z]" "$dir/help" || wrong "the overview lists $c"
	"$bin" "$c" --help >"$dir/help.$c" 2>"$dir/err" || wrong "$c --help"
	[[ -s $dir/err ]] && wrong "$c --help writes to stderr"
	"$bin" help "$c" | cmp -s - "$dir/help.$c" || wrong "help $c is $c --help"
	expect 64 "dashcam $c: unknown option '--no-such-option'" "$c" --no-such-option
	expect 64 "unknown option '-%'" "$c" -%
	for option in $("$docgen" options "$c"); do
		grep -q -- "$option" "$dir/help.$c" || wrong "$c --help leaves out $option"
	done
done

# A capture that cannot be opened: one line, whatever is asked of it.
: >"$dir/empty.dcap"
head -c 100000 /dev/urandom >"$dir/noise.dcap"
mkdir "$dir/dir.dcap"
mkfifo "$dir/fifo.dcap"
for c in keep rm why symbolize "scrub --arg x"; do
	# shellcheck disable=SC2086
	expect 1 "is a directory, expected a capture" $c "$dir/dir.dcap"
done
[[ ! -e $dir/dir.dcap.keep ]] || wrong "a directory is not kept"
for c in info show export; do
	grep -qx $c <<<"$commands" || continue
	expect 64 "expected a capture" $c
	expect 64 "unexpected argument" $c a b
	expect 1 "no such file" $c "$dir/none.dcap"
	expect 1 "is empty|not a capture|nothing" $c "$dir/empty.dcap"
	expect 1 "not a capture|no whole block|nothing" $c "$dir/noise.dcap"
	expect 1 "is a directory" $c "$dir/dir.dcap"
	expect 1 "regular file|not a file|not a capture" $c "$dir/fifo.dcap"
done
expect 64 "'--format'|--format: 'xml' is not known, expected one of jsonl\|chrome" export x --format xml
expect 64 "--from: 'noon' was not understood, expected a moment" show x --from noon
expect 64 "--pid: '-3' is negative" show x --pid -3
expect 64 "--pid: '0' is too small" show x --pid 0
expect 64 "'--from' needs a value" show x --from

# Ring directories that are not there, not directories, or not to be believed.
"$bin" status >"$dir/out" 2>"$dir/err" || wrong "status without a ring directory is no error"
grep -q "Nothing records" "$dir/out" || wrong "status says that nothing records"
[[ $("$bin" status --json | jq '.processes | length') == 0 ]] || wrong "status --json without rings"
expect 1 "No such file|no such|does not exist" status --dir "$dir/none"
mkdir "$dir/no-rings"
expect 1 "no such process records in" status --dir "$dir/no-rings" --pid 1
[[ ! -s $dir/out ]] || wrong "status says once that nothing is there: $(cat "$dir/out")"
expect 1 "no ring of a program that is gone" recover "$dir/no-rings"
expect 127 "cannot run '$dir/none': No such file or directory" run --dir "$dir/no-rings" -- "$dir/none"
expect 126 "cannot run '/': Permission denied" run --dir "$dir/no-rings" -- /
expect 1 "capture directory '/proc/none': No such file" run --dir "$dir/no-rings" --out /proc/none -- true
expect 1 "ring directory '$dir/none/none': cannot create it: No such file" run --dir "$dir/none/none" -- true
expect 1 "irectory" status --dir "$dir/empty.dcap"
mkdir -m 0777 "$dir/open"
chmod 0777 "$dir/open"
expect 1 "others could" status --dir "$dir/open"
mkdir -m 0700 "$dir/rings"
expect 1 "no such process" status --pid 1
expect 64 "--interval: '-1s' is negative" status --interval -1s
expect 64 "--interval: '1ns' is too small" status --interval 1ns
expect 64 "expected a time with a unit" status --interval 5

# Rings that are no rings are counted, not fatal.
head -c 8192 /dev/urandom >"$dir/rings/1.1.00000001.ring"
: >"$dir/rings/2.1.00000001.ring"
"$bin" status >"$dir/out" 2>"$dir/err" || wrong "status with a bad ring"
(($(wc -l <"$dir/err") <= 1)) || wrong "one line about bad rings"
rm "$dir/rings/"*

expect 1 "no such process" sites
expect 64 "exclude each other" sites 'x*' --on --off
expect 64 "which sites" sites --off
expect 64 "not a power of two" sites 'x*' --throttle 3
expect 64 "at most 1048576" sites 'x*' --throttle 2097152

# doctor answers in words and in JSON with the same states.
"$bin" doctor --dir "$dir/rings" >"$dir/out" 2>"$dir/err" || wrong "doctor: $(cat "$dir/out" "$dir/err")"
text=$(awk '/^(Ok|Degraded|Failed) /{print $1}' "$dir/out" | tr '\n' ' ')
json=$("$bin" doctor --dir "$dir/rings" --json | jq -r '.checks[].state' | tr '\n' ' ')
[[ -n $text && $text == "$json" ]] || wrong "doctor: '$text' in words, '$json' in JSON"
"$bin" doctor --dir "$dir/rings" --json | jq -e 'all(.checks[]; .state == "Ok" or (.means and .fix))' >/dev/null ||
	wrong "doctor: every check that is not Ok says what it means and the fix"
"$bin" doctor --dir "$dir/open" >"$dir/out" 2>&1
[[ $? == 1 ]] && grep -q '^Failed *ring directory' "$dir/out" || wrong "doctor: a ring directory open to all has failed"

# A full disk behind stdout is not success.
"$bin" version >/dev/full 2>"$dir/err"
[[ $? == 1 ]] && grep -q "cannot write to standard output: No space left" "$dir/err" || wrong "a full stdout is an error"
expect 64 "'9100' has no port" run --metrics 9100 -- true

# Completion knows every command and every option.
# shellcheck disable=SC1091
source "$pages/dashcam.bash"
complete_words() { # WORD...: the last one is being typed
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	COMPREPLY=()
	_dashcam
}
complete_words dashcam ""
for c in $commands; do
	[[ " ${COMPREPLY[*]} " == *" $c "* ]] || wrong "completion leaves out $c"
	complete_words dashcam "$c" --
	for option in $("$docgen" options "$c") --help; do
		[[ " ${COMPREPLY[*]} " == *" $option "* ]] || wrong "completion of $c leaves out $option"
	done
	complete_words dashcam ""
done
complete_words dashcam export --format ""
[[ ${COMPREPLY[*]} == "jsonl chrome folded pprof" ]] || wrong "completion of --format: ${COMPREPLY[*]}"
complete_words dashcam st
[[ ${COMPREPLY[*]} == "status" ]] || wrong "completion of st: ${COMPREPLY[*]}"

# The configuration that is installed is understood, says what the defaults are, and names real keys only.
sed '/^#\[/,$d; s/^#\([a-z-]* =\)/\1/' "$DASHCAM_SOURCE/tools/dashcam.conf" >"$dir/all.conf"
grep -q '^window = 30s' "$dir/all.conf" || wrong "the sample configuration shows the window"
expect 1 "others could" watch --config "$dir/all.conf" --dir "$dir/open"
while read -r key _ value; do
	"$bin" watch --help | tr -s ' \n' ' ' | grep -qE -- "--$key [A-Za-z|]+ [^()]*(\(else $value|\($value\))" ||
		wrong "the sample configuration says $key = $value"
done < <(grep '^[a-z-]* = ' "$dir/all.conf")

# Manual pages: one a command, clean, every option in it; every reference goes somewhere.
for c in $commands; do
	page=$pages/dashcam-$c.1
	[[ -s $page ]] || {
		wrong "no manual page for $c"
		continue
	}
	for option in $("$docgen" options "$c"); do
		MANWIDTH=200 mandoc -T utf8 "$page" | col -b | grep -qE -- "(^|[ ,])$option( |$)" ||
			wrong "dashcam-$c.1 leaves out $option"
	done
done
for page in "$pages"/*.[157]; do
	mandoc -T lint -W style "$page" | grep -v 'referenced manual not found' >"$dir/lint" &&
		wrong "$(cat "$dir/lint")"
	for name in $(sed -n 's/^\.Xr \([a-z.-]*\) \([157]\).*/\1.\2/p' "$page"); do
		[[ -s $pages/$name ]] || wrong "$page refers to $name, which is not there"
	done
done

# The table of bars reads as one: a name that it does not know is answered with all that it knows.
said=$("$DASHCAM_SOURCE/tests/bench" --build "$DASHCAM_BUILD" nosuch 2>&1)
[[ $? == 2 && $said == *"'nosuch', there are: hotpath watched threads "* ]] || wrong "tests/bench nosuch: $said"

judge
