/* SPDX-License-Identifier: MIT */
/*
 * The peer of bench_hotpath: the same pair through LTTng-UST, a snapshot session in overwrite mode, in this process. It
 * lives in a module of its own (bench_hotpath_lttng.c), built where LTTng's headers are and loaded at run time.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/bench.h"
#include "tests/bench_hotpath.h"

struct hot_peer {
	void *module;
	double (*pair_ns)(long n);
};

static char why[256];

const char *hot_peer_why(void)
{
	return why;
}

static int shell(const char *command)
{
	char line[512];
	snprintf(line, sizeof line, "%s >/dev/null 2>&1", command);
	return system(line);
}

static void *module_load(void)
{
	char path[512];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
	if (n < 0)
		return NULL;
	path[n] = 0;
	*strrchr(path, '/') = 0;
	strcat(path, "/bench_hotpath_lttng.so");
	return dlopen(path, RTLD_NOW);
}

/* The session must exist before the module's tracepoints register, else the first events go nowhere. */
static bool session_start(void)
{
	return !shell("lttng create dashcam-bench --snapshot") &&
	       !shell("lttng enable-channel -s dashcam-bench -u bench --overwrite --subbuf-size=8M --num-subbuf=4") &&
	       !shell("lttng enable-event -s dashcam-bench -c bench -u 'dashcam_bench:*'") &&
	       !shell("lttng start dashcam-bench");
}

struct hot_peer *hot_peer_open(void)
{
	static struct hot_peer peer;
	if (shell("command -v lttng")) {
		snprintf(why, sizeof why, "skipped: lttng-tools is not installed");
		return NULL;
	}
	if (shell("lttng list") && shell("lttng-sessiond --daemonize")) {
		snprintf(why, sizeof why, "skipped: lttng-sessiond does not start");
		return NULL;
	}
	if (!session_start()) {
		snprintf(why, sizeof why, "skipped: lttng refused the session (see `lttng create --snapshot`)");
		return NULL;
	}
	peer.module = module_load();
	if (peer.module)
		*(void **)&peer.pair_ns = dlsym(peer.module, "lttng_pair_ns");
	if (!peer.pair_ns) {
		const char *error = dlerror();
		snprintf(why, sizeof why, "skipped: %s", error ? error : "no module");
		hot_peer_close(&peer);
		return NULL;
	}
	sleep(1); /* registration with the session daemon */
	return &peer;
}

double hot_peer_pair_ns(struct hot_peer *p, long n)
{
	return p->pair_ns(n);
}

void hot_peer_close(struct hot_peer *p)
{
	(void)p;
	shell("lttng destroy dashcam-bench");
}
