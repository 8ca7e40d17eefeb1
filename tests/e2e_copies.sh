#!/bin/bash
# SPDX-License-Identifier: MIT
# Ways the library gets into a process: twice (inside the program and again with a plugin: two rings, one pid), late and by
# dlopen() alone (its events are there, also after dlclose()), into a setuid program (which ignores the environment).
set -eu -o pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
lib=$DASHCAM_BUILD/recorder
nm -D "$lib/libdashcam.so" | grep '__[at]san_' >/dev/null && { echo "skipped: a sanitizer's library wants its own kind of program"; exit 77; }

cat >"$dir/plugin.c" <<'END'
#include <dashcam.h>
__attribute__((visibility("default"))) void plugin_work(int n);
void plugin_work(int n)
{
	DC_SPAN("plugin.work", "n", n);
	DC_INSTANT("plugin.tick");
}
END
cat >"$dir/host.c" <<'END'
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#ifdef RECORDS
#include <dashcam.h>
#endif
static void *thread(void *work)
{
	((void (*)(int))work)(2);
	return NULL;
}
int main(int argc, char **argv)
{
#ifdef RECORDS
	DC_INSTANT("host.start", "argc", argc);
#endif
	void *plugin = dlopen(argv[1], RTLD_NOW);
	if (argc < 2 || !plugin)
		return fprintf(stderr, "%s\n", dlerror()), 1;
	void *work = dlsym(plugin, "plugin_work");
	((void (*)(int))work)(1);
	pthread_t t;
	pthread_create(&t, NULL, thread, work);
	pthread_join(t, NULL);
	dlclose(plugin);
#ifdef RECORDS
	DC_INSTANT("host.end", "argc", argc);
#endif
	printf("%d\n", getpid());
	return 0;
}
END
cc -O2 -fPIC -shared -I"$DASHCAM_SOURCE/recorder" "$dir/plugin.c" -o "$dir/plugin.so" -L"$lib" -ldashcam -Wl,-rpath,"$lib"
cc -O2 -DRECORDS -I"$DASHCAM_SOURCE/recorder" "$dir/host.c" "$lib/libdashcam.a" -o "$dir/both" -lpthread
cc -O2 -rdynamic -DRECORDS -I"$DASHCAM_SOURCE/recorder" "$dir/host.c" "$lib/libdashcam.a" -o "$dir/shown" -lpthread
cc -O2 "$dir/host.c" -o "$dir/late" -lpthread

# Names of all events in the rings of $1, one a line, after they were recovered into captures.
names_in() {
	local ring
	for ring in "$1"/*.ring; do
		"$DASHCAM_BIN" recover "$ring" -o "$ring.dcap" >/dev/null
		"$DASHCAM_BIN" export "$ring.dcap" --format jsonl
	done | grep -o '"name":"[^"]*"' | sort | uniq -c | awk '{print $1, $2}' | tr '\n' ' '
}
expect() {
	[ "$2" = "$3" ] && return
	echo "$1: found '$2', expected '$3'"
	exit 1
}

mkdir "$dir/rings"
pid=$(DASHCAM_DIR=$dir/rings "$dir/both" "$dir/plugin.so")
expect "two copies: rings of the process" "$(find "$dir/rings" -name "$pid.*.ring" | wc -l)" 2
events='1 "name":"host.end" 1 "name":"host.start" 2 "name":"plugin.tick" 4 "name":"plugin.work" '
expect "two copies: events" "$(names_in "$dir/rings")" "$events"

# A program that shows its copy to plugins (-rdynamic) shares it with them: one ring.
mkdir "$dir/shown.rings"
pid=$(DASHCAM_DIR=$dir/shown.rings "$dir/shown" "$dir/plugin.so")
expect "a copy shown: rings of the process" "$(find "$dir/shown.rings" -name "$pid.*.ring" | wc -l)" 1
expect "a copy shown: events" "$(names_in "$dir/shown.rings")" "$events"

mkdir "$dir/late.rings"
pid=$(DASHCAM_DIR=$dir/late.rings "$dir/late" "$dir/plugin.so")
expect "late: rings of the process" "$(find "$dir/late.rings" -name "$pid.*.ring" | wc -l)" 1
expect "late: events" "$(names_in "$dir/late.rings")" '2 "name":"plugin.tick" 4 "name":"plugin.work" '

if [ "$(id -u)" = 0 ] && id nobody >/dev/null 2>&1; then
	mkdir "$dir/trap"
	chmod 711 "$dir"
	chmod 1777 "$dir/trap"
	cp "$dir/both" "$dir/setuid"
	chown nobody "$dir/setuid"
	chmod 4755 "$dir/setuid"
	chmod 644 "$dir/plugin.so"
	uid=$(id -u nobody)
	# run by root, effective uid nobody: AT_SECURE, so DASHCAM_DIR must not be believed
	DASHCAM_DIR=$dir/trap "$dir/setuid" "$dir/plugin.so" >"$dir/pid" || true
	expect "setuid: rings where the environment says" "$(find "$dir/trap" -name '*.ring' | wc -l)" 0
	where=/dev/shm/dashcam-$uid
	[ -d /run/dashcam ] && where=/run/dashcam
	pid=$(cat "$dir/pid")
	[ -n "$pid" ] && rm -f "$where/$pid."*.ring
	rmdir "/dev/shm/dashcam-$uid" 2>/dev/null || true
else
	echo "not root, or no user nobody: setuid programs not tried"
fi
echo "two copies, a late one, and one in a setuid program"
