/* SPDX-License-Identifier: MIT */
/*
 * Facts that do not change: of this boot (which clock to use, its id) and of this process (start time, pid namespace).
 * Read once, in our constructor, so that starting to record does not pay for them. Children inherit those of the boot
 * and, being another pid, read their own of the process.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>

#include "recorder/recorder.h"
#include "recorder/text.h"

static struct dc_host host;
static uint32_t host_known;

long dc_slurp(const char *path, char *text, size_t size)
{
	long fd = dc_sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long n = dc_sys(SYS_read, fd, text, size - 1);
	dc_sys(SYS_close, fd);
	text[n > 0 ? n : 0] = 0;
	return n;
}

/*
 * The tick counter where the kernel itself trusts it as a clock source; elsewhere (and where PR_SET_TSC forbids it)
 * CLOCK_MONOTONIC, at the price of a call per event.
 */
#if defined(__x86_64__)
static uint32_t clock_choose(void)
{
	char text[32] = { 0 };
	long n = dc_slurp("/sys/devices/system/clocksource/clocksource0/current_clocksource", text, sizeof text);
	bool trusted = n >= 3 && text[0] == 't' && text[1] == 's' && text[2] == 'c';
	return trusted ? DC_CLOCK_TSC : DC_CLOCK_MONOTONIC;
}
#else
static uint32_t clock_choose(void)
{
	return DC_CLOCK_CNTVCT; /* architected: constant, synchronous, readable from user space */
}
#endif

static void boot_id_read(uint8_t id[16])
{
	char text[40];
	if (dc_slurp("/proc/sys/kernel/random/boot_id", text, sizeof text) < 36)
		return;
	for (unsigned i = 0, n = 0; i < 36 && n < 32; i++) {
		int digit = text[i] == '-' ? -1 : text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10;
		if (digit >= 0) {
			id[n / 2] |= (uint8_t)(digit << (n % 2 ? 0 : 4));
			n++;
		}
	}
}

/* May run twice when threads meet before the constructor has run: both find the same. */
const struct dc_host *dc_host(void)
{
	if (!__atomic_load_n(&host_known, __ATOMIC_ACQUIRE)) { /* [host-known] acquire */
		struct dc_host h = { .clock = clock_choose() };
		boot_id_read(h.boot_id);
		host = h;
		/* [host-known] release; pairs with the acquire above */
		__atomic_store_n(&host_known, 1, __ATOMIC_RELEASE);
	}
	return &host;
}

/* ---- the process ---- */

static uint64_t start_time(void)
{
	char text[1024];
	if (dc_slurp("/proc/self/stat", text, sizeof text) <= 0)
		return 0;
	char *p = strrchr(text, ')'); /* field 2 may hold spaces */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? dc_text_decimal(p + 1) : 0;
}

static uint64_t pid_namespace(void)
{
	char text[40]; /* "pid:[4026531836]" */
	long n = dc_sys(SYS_readlinkat, AT_FDCWD, "/proc/self/ns/pid", text, sizeof text - 1);
	text[n > 0 ? n : 0] = 0;
	return n > 5 ? dc_text_decimal(text + 5) : 0;
}

static struct dc_self self_at_load;

struct dc_self dc_self(void)
{
	uint32_t pid = (uint32_t)dc_sys(SYS_getpid);
	if (self_at_load.pid == pid)
		return self_at_load;
	return (struct dc_self){ .pid = pid, .start_time = start_time(), .pid_namespace = pid_namespace() };
}

static char name_at_load[16];

/* The kernel's name of a process is that of its first thread. Others ask for what it was when we were loaded. */
void dc_self_name(char name[16])
{
	if (dc_sys(SYS_gettid) == dc_sys(SYS_getpid) || !name_at_load[0])
		dc_sys(SYS_prctl, PR_GET_NAME, name, 0, 0, 0);
	else
		memcpy(name, name_at_load, sizeof name_at_load);
}

uint32_t dc_ticks_forbidden;

/* A process may forbid itself the TSC (PR_SET_TSC), so this is asked at each start. */
uint32_t dc_clock_usable(void)
{
#if defined(__x86_64__)
	int mode = PR_TSC_ENABLE;
	dc_sys(SYS_prctl, PR_GET_TSC, &mode, 0, 0, 0);
	dc_ticks_forbidden = mode != PR_TSC_ENABLE;
	if (dc_ticks_forbidden)
		return DC_CLOCK_MONOTONIC;
#endif
	return dc_host()->clock;
}

__attribute__((constructor)) static void host_at_load(void)
{
	struct dc_settings settings;
	dc_settings_read(NULL, &settings);
	if (settings.off)
		return;
	dc_host();
	self_at_load = dc_self();
	if (dc_sys(SYS_gettid) == self_at_load.pid)
		dc_sys(SYS_prctl, PR_GET_NAME, name_at_load, 0, 0, 0);
}
