#!/bin/bash
# SPDX-License-Identifier: MIT
# A program that is sampled, replaced by a new build together with its library, and killed: of its frames at least 99 % have
# the names of the build that ran, never those of the new one. Settled later, without what the watcher held, they are module
# and offset, and all others have names; with the old build at hand they get theirs.
source "$(dirname "$0")/e2e.sh"
cd "$dir" || exit 1

cat >hot.c <<'END'
#ifdef LIBRARY
#define WORK(n, next) __attribute__((noinline)) void n(void) { for (volatile int i = 0; i < 20000; i++) ; next; }
#ifdef NEW
WORK(new_first, ) WORK(new_second, new_first()) WORK(new_third, new_second())
#endif
WORK(old_leaf, ) WORK(old_inner, old_leaf()) WORK(old_work, old_inner())
#else
void old_work(void);
#ifdef NEW
__attribute__((noinline)) void new_caller(void) { old_work(); __asm__ volatile(""); }
#endif
__attribute__((noinline)) void old_caller(void) { old_work(); __asm__ volatile(""); }
int main(void) { for (;;) old_caller(); }
#endif
END
for build in old new; do
	mkdir "$build"
	flags="-g -O1 -fno-omit-frame-pointer -Wl,--build-id"
	[[ $build == new ]] && flags+=" -DNEW"
	# shellcheck disable=SC2086 # several
	cc $flags -shared -fPIC -DLIBRARY hot.c -o "$build/libhot.so" && cc $flags hot.c -o "$build/hot" -L"$build" -lhot -Wl,-rpath,"$dir/run" ||
		exit 1
done

# killed SETTLE: leaves the capture's name in $capture, of a program that was replaced a second after its start, and killed
killed() {
	rm -rf run out
	cp -r old run
	bash -c '"$0" run --sample 499 --settle "$1" --out out -- run/hot' "$bin" "$1" 2>log &
	until grep -q 'to save the past' log 2>/dev/null; do sleep 0.05; done
	sleep 1
	local pid
	pid=$(sed -n 's/.*dashcam trigger --pid \([0-9]*\).*/\1/p' log)
	for file in hot libhot.so; do
		cp "new/$file" "run/$file.new"
		mv "run/$file.new" "run/$file"
	done
	kill -9 "$pid"
	wait
	capture=$(echo out/*.dcap)
	[[ -s $capture ]] || wrong "no capture: $(cat log)"
}

# share WANTED-OWN: prints the shares of frames with names, of the two that were replaced and of other files; judges them
share() {
	"$bin" export "$capture" -f folded -o folded || wrong "export"
	grep -q ';new_' folded && wrong "$1: names of a build that never ran: $(grep -m1 ';new_' folded)"
	python3 - "$1" "$2" <<'END' || wrong "$1: too few names: $(sort folded | head -5)"
import re, sys
own, others = [0, 0], [0, 0]
for line in open('folded'):
    frames, count = line.rstrip().rsplit(' ', 1)
    for f in frames.split(';')[2:]:
        bare = re.match(r'(.*)\+0x[0-9a-f]+$', f)
        where = own if re.match(r'(old_|main$|(lib)?hot)', f) else others
        if '[' not in f: # the kernel tells its names or does not
            where[1 if bare else 0] += int(count)
share = lambda x: 100 * x[0] / sum(x) if sum(x) else 100 # where what was replaced is all that ran, no other lacks a name
print('%s: %d frames of what was replaced, %.1f %% with names; %d others, %.1f %%' % (sys.argv[1], sum(own), share(own), sum(others), share(others)))
sys.exit(sum(own) < 100 or share(others) < 99 or not (share(own) >= 99 if sys.argv[2] == 'named' else share(own) == 0))
END
}

killed yes
if grep -q 'not sampled' log; then
	sed 's/.*not sampled: /sampling is refused here: /' log
	exit 77
fi
share 'held by the watcher' named
killed no
"$bin" settle "$capture" >said 2>&1 || wrong "settle: $(cat said)"
grep -q 'no names in' said || wrong "not said: $(cat said)"
share 'settled later' bare
"$bin" symbolize "$capture" --debug-dir old >said || wrong "symbolize: $(cat said)"
share 'with the old build' named

judge
