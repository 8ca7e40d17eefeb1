/* SPDX-License-Identifier: MIT */
#include "trigger/threads.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/now.h"
#include "trigger/proc.h"
#include "trigger/threads_inside.h"

void dc_taking_why(struct taking *t, const char *format, ...)
{
	va_list args;

	if (t->totals.why[0])
		return;
	va_start(args, format);
	vsnprintf(t->totals.why, sizeof(t->totals.why), format, args);
	va_end(args);
}

bool dc_taking_time_left(const struct taking *t)
{
	return t->result == 0 && dc_now_ns() - t->began_ns < t->budget_ns;
}

static void take_one(struct taking *t, uint32_t tid)
{
	struct thread th = {.tid = tid, .own_tid = tid, .cpu = UINT32_MAX, .state.syscall = DC_SYSCALL_UNKNOWN};

	if (dc_now_ns() - t->began_ns < 2 * t->budget_ns && dc_thread_look(t, &th) < 0)
		return; /* it ended */
	t->totals.threads++;
	if (!dc_taking_room_left(t))
		dc_taking_why(t, "out of room after %u threads", t->totals.threads - 1);
	else if (!dc_taking_time_left(t))
		dc_taking_why(t, "out of time after %u threads", t->totals.threads - 1);
	else if (dc_thread_can_stop(&th) && t->late_count < LATE_MAX && dc_taking_stop(t, &th))
		return;
	dc_taking_sample(t, &th, NULL);
}

/* Ids of all threads there are now; those to come are not chased. Return: how many, -errno. */
static int list_threads(struct taking *t, uint32_t *ret_tids)
{
	int fd = openat(t->task_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;
	int count = 0;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return -ESRCH;
	}
	while ((e = readdir(d))) {
		uint32_t tid = (uint32_t)strtoul(e->d_name, NULL, 10);

		if (tid && count == (int)DC_THREADS_MAX)
			dc_taking_why(t, "more than %u threads", DC_THREADS_MAX);
		else if (tid)
			ret_tids[count++] = tid;
	}
	closedir(d);
	return count;
}

/* Writable mappings; of a process with very many only the first. */
static void list_spans(struct taking *t, uint32_t tid)
{
	char path[64], line[512];
	CLEANUP(fclose) FILE *f = NULL;
	struct span s;
	char rights[5];

	snprintf(path, sizeof(path), "/proc/%u/task/%u/maps", t->pid, tid);
	f = fopen(path, "re");
	while (f && t->span_count < SPANS_MAX && fgets(line, sizeof(line), f))
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &s.start, &s.end, rights) == 3 && rights[1] == 'w')
			t->spans[t->span_count++] = s;
}

static int open_tasks(struct taking *t)
{
	struct dc_proc_stat st;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%u/task", t->pid);
	t->task_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->task_fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (dc_proc_stat(t->pid, &st) < 0 || st.start_time != t->start_time)
		return -ESRCH;
	t->other_namespace = dc_thread_status(t, t->pid, "\nNSpid:") != t->pid;
	return 0;
}

uint32_t dc_threads_count(uint32_t pid)
{
	struct stat st;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%u/task", pid);
	return stat(path, &st) == 0 && st.st_nlink > 2 ? (uint32_t)st.st_nlink - 2 : 0;
}

static int by_value(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void sum_up(struct taking *t)
{
	struct dc_threads_totals *s = &t->totals;

	if (s->taken) {
		qsort(t->held_ns, s->taken, sizeof(*t->held_ns), by_value);
		s->stopped_median_ns = t->held_ns[s->taken / 2];
		s->stopped_max_ns = t->held_ns[s->taken - 1];
	}
	s->took_ns = (uint64_t)(dc_now_ns() - t->began_ns);
}

static int take_all(struct taking *t)
{
	CLEANUP(free) uint32_t *tids = calloc(DC_THREADS_MAX, sizeof(*tids));
	CLEANUP(free) uint64_t *held = calloc(DC_THREADS_MAX, sizeof(*held));
	CLEANUP(free) uint8_t *stack = malloc(DC_THREADS_STACK_BYTES);
	CLEANUP(free) struct span *spans = calloc(SPANS_MAX, sizeof(*spans));
	int count = tids && held && stack && spans ? open_tasks(t) : -ENOMEM;

	if (count == 0)
		count = list_threads(t, tids);
	if (count < 0)
		return count;
	memset(stack, 1, DC_THREADS_STACK_BYTES);
	t->copy.stack = stack;
	t->held_ns = held;
	t->spans = spans;
	if (count)
		list_spans(t, tids[count - 1]); /* the first may have ended, and then shows none */
	for (int i = 0; i < count && t->result == 0; i++) {
		take_one(t, tids[i]);
		dc_taking_wait(t, LATE_MAX - 1);
	}
	dc_taking_end(t);
	dc_taking_flush(t);
	sum_up(t);
	return t->result;
}

static void *run(void *arg)
{
	struct taking *t = arg;

	t->result = take_all(t);
	if (t->task_fd >= 0)
		close(t->task_fd);
	return NULL;
}

/* The tracer: no signal is handled in it, and its end lets go of whatever it still holds. */
static int run_in_thread(struct taking *t)
{
	pthread_t thread;
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&thread, NULL, run, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r == 0)
		pthread_join(thread, NULL);
	return r < 0 ? r : t->result;
}

static int take(struct taking *t, struct dc_threads_totals *ret_totals)
{
	int r = 0;

	t->began_ns = dc_now_ns();
	t->task_fd = -1;
	if (t->pid == (uint32_t)getpid())
		dc_taking_why(t, "it is the watcher itself");
	else
		r = run_in_thread(t);
	if (r == 0)
		*ret_totals = t->totals;
	return r;
}

int dc_threads_write(uint32_t pid, uint64_t start_time, uint32_t process, int64_t budget_ns, struct dc_writer *w,
		     struct dc_threads_totals *ret_totals)
{
	struct taking t = {.pid = pid, .start_time = start_time, .process = process, .budget_ns = budget_ns, .writer = w};

	return take(&t, ret_totals);
}

int dc_threads_take(uint32_t pid, uint64_t start_time, int64_t budget_ns, struct dc_threads **ret_threads,
		    struct dc_threads_totals *ret_totals)
{
	CLEANUP(dc_threads) struct dc_threads *threads = calloc(1, sizeof(*threads));
	struct taking t = {.pid = pid, .start_time = start_time, .budget_ns = budget_ns, .threads = threads};
	int r = threads ? take(&t, ret_totals) : -ENOMEM;

	if (r == 0)
		*ret_threads = TAKE(threads);
	return r;
}
