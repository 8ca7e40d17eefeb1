/* SPDX-License-Identifier: MIT */
#include "trigger/known.h"

#include <ctype.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "trigger/mask.h"
#include "trigger/proc.h"

#define CMDLINE_READ_BYTES 8192
#define RENAME_LOOKS 8u /* a thread's name is asked for that many times: most take theirs soon after they begin */

struct thread {
	uint32_t tid; /* 0: free */
	uint32_t looks;
	char comm[16];
};

struct dc_known {
	pthread_mutex_t lock;
	char exe[256];
	char cmdline[512];
	uint32_t count;
	uint32_t slots; /* a power of two, at most twice DC_KNOWN_THREADS_MAX */
	struct thread *threads; /* by tid, open addressing */
};

struct dc_known *dc_known_new(void)
{
	struct dc_known *k = calloc(1, sizeof(*k));

	if (k)
		pthread_mutex_init(&k->lock, NULL);
	return k;
}

void dc_known_free(struct dc_known *k)
{
	if (!k)
		return;
	pthread_mutex_destroy(&k->lock);
	free(k->threads);
	free(k);
}

/* Where @tid is, or the free place where it would be. Needs slots. */
static struct thread *place_of(struct thread *threads, uint32_t slots, uint32_t tid)
{
	uint32_t i = tid * 2654435761u & (slots - 1);

	while (threads[i].tid && threads[i].tid != tid)
		i = (i + 1) & (slots - 1);
	return &threads[i];
}

/* At most half full, so that looking up ends. */
static int make_room(struct dc_known *k)
{
	const uint32_t slots = k->slots ? k->slots * 2 : 32;
	struct thread *threads;

	if (k->count < k->slots / 2)
		return 0;
	if (k->count >= DC_KNOWN_THREADS_MAX)
		return -1;
	threads = calloc(slots, sizeof(*threads));
	if (!threads)
		return -1;
	for (uint32_t i = 0; i < k->slots; i++)
		if (k->threads[i].tid)
			*place_of(threads, slots, k->threads[i].tid) = k->threads[i];
	free(k->threads);
	k->threads = threads;
	k->slots = slots;
	return 0;
}

/* Whether this thread's name is worth asking for again. */
static bool wanted(struct dc_known *k, uint32_t tid)
{
	bool yes;

	pthread_mutex_lock(&k->lock);
	yes = !k->slots || place_of(k->threads, k->slots, tid)->looks < RENAME_LOOKS;
	pthread_mutex_unlock(&k->lock);
	return yes;
}

static void keep(struct dc_known *k, uint32_t tid, const char *comm)
{
	struct thread *t;

	pthread_mutex_lock(&k->lock);
	if (make_room(k) == 0) {
		t = place_of(k->threads, k->slots, tid);
		k->count += !t->tid;
		t->tid = tid;
		t->looks++;
		snprintf(t->comm, sizeof(t->comm), "%s", comm);
	}
	pthread_mutex_unlock(&k->lock);
}

static void look_at_thread(struct dc_known *k, uint32_t pid, const char *tid)
{
	char file[64], comm[16]; /* the kernel keeps 15 and a NUL; the newline is cut with them */
	unsigned long id = strtoul(tid, NULL, 10);

	if (!id || id > UINT32_MAX || !wanted(k, (uint32_t)id))
		return;
	snprintf(file, sizeof(file), "task/%lu/comm", id);
	if (dc_proc_read(pid, file, comm, sizeof(comm)) <= 0)
		return;
	comm[strcspn(comm, "\n")] = 0;
	keep(k, (uint32_t)id, comm);
}

static void look_at_threads(struct dc_known *k, uint32_t pid)
{
	char path[64];
	DIR *tasks;
	struct dirent *e;

	snprintf(path, sizeof(path), "/proc/%u/task", pid);
	tasks = opendir(path);
	if (!tasks)
		return;
	while ((e = readdir(tasks)))
		if (isdigit((unsigned char)e->d_name[0]))
			look_at_thread(k, pid, e->d_name);
	closedir(tasks);
}

static bool same_process(uint32_t pid, uint64_t start_time)
{
	struct dc_proc_stat st;

	return pid && dc_proc_stat(pid, &st) == 0 && st.start_time == start_time && st.state != 'Z';
}

void dc_known_look(struct dc_known *k, uint32_t pid, uint32_t ns_pid, uint64_t start_time)
{
	char args[CMDLINE_READ_BYTES], exe[sizeof(k->exe)] = "", cmdline[sizeof(k->cmdline)] = "";
	ssize_t n;

	if (!k || !same_process(pid, start_time))
		return;
	n = dc_proc_read(pid, "cmdline", args, sizeof(args));
	if (n > 0)
		dc_mask(args, (size_t)n, cmdline, sizeof(cmdline));
	dc_proc_exe(pid, exe, sizeof(exe));
	if (pid == ns_pid)
		look_at_threads(k, pid);
	if (!same_process(pid, start_time))
		return; /* it went, and the pid may have come to mean somebody else meanwhile */
	pthread_mutex_lock(&k->lock);
	if (exe[0])
		memcpy(k->exe, exe, sizeof(k->exe));
	if (cmdline[0])
		memcpy(k->cmdline, cmdline, sizeof(k->cmdline));
	pthread_mutex_unlock(&k->lock);
}

void dc_known_facts(struct dc_known *k, char *ret_exe, size_t exe_size, char *ret_cmdline, size_t cmdline_size)
{
	if (!k) {
		snprintf(ret_exe, exe_size, "%s", "");
		snprintf(ret_cmdline, cmdline_size, "%s", "");
		return;
	}
	pthread_mutex_lock(&k->lock);
	snprintf(ret_exe, exe_size, "%s", k->exe);
	snprintf(ret_cmdline, cmdline_size, "%s", k->cmdline);
	pthread_mutex_unlock(&k->lock);
}

void dc_known_name_lanes(struct dc_known *k, struct dc_ring_lane *lanes, uint32_t count)
{
	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	for (uint32_t i = 0; k->slots && i < count; i++) {
		const struct thread *t = lanes[i].tid ? place_of(k->threads, k->slots, lanes[i].tid) : NULL;

		if (t && t->tid && !lanes[i].comm[0])
			memcpy(lanes[i].comm, t->comm, sizeof(lanes[i].comm));
	}
	pthread_mutex_unlock(&k->lock);
}
