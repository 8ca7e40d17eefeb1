/* SPDX-License-Identifier: MIT */
/* The recorded side of `dashcam selftest`: a program like any other, by the public API only. */
#include "tools/selftest.h"

#include <errno.h>
#include <unistd.h>

#include "recorder/dashcam.h"

static void work(void)
{
	dc_span_t open;

	dc_thread_name("selftest");
	for (unsigned i = 0; i < SELFTEST_SPANS; i++) {
		dc_span_t span = DC_BEGIN("selftest.span", "i", i);

		DC_INSTANT("selftest.instant", "half", i / 2.0);
		DC_END(span);
	}
	open = DC_BEGIN("selftest.open", "why", "never ended");
	(void)open;
	DC_LOG(DC_INFO, "%u spans recorded", SELFTEST_SPANS);
	DC_TRIGGER(SELFTEST_REASON);
}

int selftest_record(const char *dir, int ready_fd, int done_fd)
{
	struct dc_opts opts = DC_OPTS_INIT;
	char byte = 1;
	int r;

	opts.dir = dir;
	opts.name = SELFTEST_REASON;
	opts.memory_bytes = 4u << 20;
	opts.ignore_environment = true;
	r = dc_start(&opts);
	if (r < 0)
		return r;
	work();
	if (write(ready_fd, &byte, 1) != 1)
		return -errno;
	return read(done_fd, &byte, 1) < 0 ? -errno : 0;
}
