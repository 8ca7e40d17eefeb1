/* SPDX-License-Identifier: MIT */
#include "trigger/glance.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

/* What this thread copies now. */
static _Thread_local struct {
	volatile uintptr_t from, end; /* end is 0: nothing */
	sigset_t mask; /* as it was when the load failed */
	sigjmp_buf cut;
} copying;

static struct sigaction before;

/* The fault happens again as soon as we return, and then goes its usual way. */
static void not_ours(int signal, siginfo_t *info, void *context)
{
	if (before.sa_flags & SA_SIGINFO)
		before.sa_sigaction(signal, info, context);
	else
		sigaction(signal, &before, NULL);
}

static void on_bus(int signal, siginfo_t *info, void *context)
{
	const uintptr_t at = (uintptr_t)info->si_addr;

	if (info->si_code == BUS_ADRERR && copying.end && at >= copying.from && at < copying.end) {
		copying.mask = ((const ucontext_t *)context)->uc_sigmask;
		siglongjmp(copying.cut, 1);
	}
	not_ours(signal, info, context);
}

static void handle_bus(void)
{
	const struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	sigaction(SIGBUS, &action, &before);
}

const void *dc_glance_map(int fd, uint64_t offset)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	void *page;

	if (sysconf(_SC_PAGESIZE) != DC_GLANCE_BYTES)
		return NULL;
	pthread_once(&once, handle_bus);
	page = mmap(NULL, DC_GLANCE_BYTES, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	if (page == MAP_FAILED)
		return NULL;
	if (madvise(page, DC_GLANCE_BYTES, MADV_DONTFORK) == 0)
		return page;
	munmap(page, DC_GLANCE_BYTES);
	return NULL;
}

void dc_glance_unmap(const void *page)
{
	if (page)
		munmap((void *)(uintptr_t)page, DC_GLANCE_BYTES);
}

bool dc_glance_read(const void *from, void *to, size_t bytes)
{
	const volatile uint64_t *words = from; /* so that no load leaves its place between the marks */
	uint64_t *copy = to;

	if (sigsetjmp(copying.cut, 0)) { /* which saves no mask, that would be a system call each time */
		copying.end = 0;
		pthread_sigmask(SIG_SETMASK, &copying.mask, NULL);
		return false;
	}
	copying.from = (uintptr_t)from;
	copying.end = (uintptr_t)from + bytes;
	for (size_t i = 0; i < bytes / sizeof(*words); i++)
		copy[i] = words[i];
	copying.end = 0;
	return true;
}
