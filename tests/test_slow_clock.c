/* SPDX-License-Identifier: MIT */
/*
 * A process that forbade itself the tick counter (PR_SET_TSC) records all the same, by CLOCK_MONOTONIC asked of the
 * kernel: the vDSO reads the counter too and would die of it.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/ring.h"
#include "recorder/dashcam.h"
#include "tests/scratch.h"

/* Exit status of the child: 0 recorded by the slow clock, else which step failed. */
static int record_without_ticks(void)
{
	struct dc_ring_header h;
	struct dc_stats s = { .size = sizeof s };
	if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV))
		return 77;
	{
		DC_SPAN("slow.span", "a", 1, "b", -2);
		DC_INSTANT("slow.instant", "text", "x");
	}
	if (dc_stats(&s))
		return 1;
	int fd = open(s.ring, O_RDONLY);
	if (read(fd, &h, sizeof h) != sizeof h || h.clock != DC_CLOCK_MONOTONIC)
		return 2;
	struct dc_chunk_entry e;
	if (pread(fd, &e, sizeof e, (off_t)h.states_off) != sizeof e || dc_state_events(e.state) != 3)
		return 3;
	unlink(s.ring);
	return s.dropped ? 4 : 0;
}

static void records_without_tick_counter(void **state)
{
	(void)state;
#if !defined(__x86_64__)
	skip();
#endif
	char rings[SCRATCH_BYTES];
	int status = 0;
	scratch_memory("slow_clock", rings);
	setenv("DASHCAM_DIR", rings, 1);
	pid_t pid = fork();
	if (pid == 0)
		_exit(record_without_ticks());
	waitpid(pid, &status, 0);
	scratch_remove(rings);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(records_without_tick_counter) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
