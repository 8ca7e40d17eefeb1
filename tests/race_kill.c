/* SPDX-License-Identifier: MIT */
/*
 * kill -9 of a process whose threads record at full rate, at a random instant, many times: all that was committed before
 * is in the capture. Each thread counts its events in a page it shares with us, after the call has returned, so the ring
 * must hold that many, or one more: the one whose call had not returned.
 *
 *     alone      nobody watches; dc_recover() afterwards
 *     watched    a watcher runs, is killed and started again meanwhile; its capture counts, or the ring it left
 *     together   watcher and process are killed within a millisecond; dc_recover() afterwards
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dashcam.h>

#include "storm.h"
#include "trigger/watcher.h"

#define THREADS 4u
#define WHOLE_EVENTS 2000000u /* at 16 to 21 bytes they fit into 64 MiB, beside the tables and the part for samples */

struct shared {
	_Atomic uint32_t ready;
	struct {
		_Atomic uint64_t done; /* events whose call has returned */
		char apart[56];
	} threads[THREADS];
};

static struct shared *shared;
static struct storm storm;

static void *record(void *arg)
{
	unsigned thread = (unsigned)(uintptr_t)arg;
	for (uint64_t n = 0;;) {
		storm_event(thread, n++);
		/* release: who reads the count after our death finds the event in the ring */
		atomic_store_explicit(&shared->threads[thread].done, n, memory_order_release);
	}
	return NULL;
}

static void writer(void)
{
	pthread_t threads[THREADS];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	STORM_NEED(dc_start(NULL) == 0); /* events of other threads during a start are lost, and counted */
	for (unsigned i = 1; i < THREADS; i++)
		STORM_NEED(pthread_create(&threads[i], NULL, record, (void *)(uintptr_t)i) == 0);
	atomic_store(&shared->ready, 1);
	record((void *)(uintptr_t)0);
}

static pid_t start_writer(const char *memory)
{
	memset(shared, 0, sizeof *shared);
	setenv("DASHCAM_MEMORY", memory, 1);
	pid_t pid = fork();
	STORM_NEED(pid >= 0, "%s", strerror(errno));
	if (pid == 0)
		writer();
	while (!atomic_load(&shared->ready))
		storm_sleep_ns(20000);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	STORM_NEED(waitpid(pid, NULL, 0) == pid);
}

/* What was seen, for the line that says what is wrong with it. */
static const char *all(const struct storm_seen *s)
{
	static char text[512];
	size_t n = 0;
	for (unsigned i = 0; i < THREADS; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, "%u: %llu of %llu, %llu to %llu, %llu missing; ", i,
				      (unsigned long long)s->threads[i].events,
				      (unsigned long long)atomic_load(&shared->threads[i].done),
				      (unsigned long long)s->threads[i].first, (unsigned long long)s->threads[i].next,
				      (unsigned long long)s->threads[i].missing);
	snprintf(text + n, sizeof text - n, "%llu overwritten, %llu dropped, %llu chunks discarded",
		 (unsigned long long)s->overwritten, (unsigned long long)s->dropped, (unsigned long long)s->discarded);
	return text;
}

/* A ring that was never turned over has no holes; in every one the newest events are there. */
static void check(const char *capture, bool whole)
{
	struct storm_seen seen;
	uint64_t sum = 0;
	storm_read(capture, &seen);
	for (unsigned i = 0; i < THREADS; i++)
		sum += atomic_load(&shared->threads[i].done);
	whole = whole && sum < WHOLE_EVENTS; /* else we slept longer than we meant to */
	/* An event that found no chunk is dropped and counted, also when it was a thread's last before the kill. */
	uint64_t behind = 0;
	sum = 0;
	for (unsigned i = 0; i < THREADS; i++) {
		const struct storm_thread *t = &seen.threads[i];
		unsigned long long done = atomic_load(&shared->threads[i].done);
		STORM_NEED(t->next <= done + 1, "thread %u: %llu in the ring, %llu returned", i,
			   (unsigned long long)t->next, done);
		behind += t->next < done ? done - t->next : 0;
		STORM_NEED(!whole || seen.dropped || (!t->missing && (!t->events || t->first == 0)), "%s: thread %s", capture, all(&seen));
		sum += t->next < done ? done : t->next;
	}
	STORM_NEED(behind <= seen.dropped, "%llu returned and not in the ring, %llu dropped", (unsigned long long)behind,
		   (unsigned long long)seen.dropped);
	STORM_NEED(seen.discarded == 0, "%llu chunks", (unsigned long long)seen.discarded);
	STORM_NEED(!whole || seen.overwritten == 0, "%llu overwritten in %s, %llu there, %llu dropped, %llu counted", (unsigned long long)seen.overwritten, capture, (unsigned long long)seen.events, (unsigned long long)seen.dropped, (unsigned long long)sum);
	STORM_NEED(seen.events + seen.overwritten + seen.dropped == sum, "%llu there, %llu overwritten, %llu dropped of %llu",
		   (unsigned long long)seen.events, (unsigned long long)seen.overwritten,
		   (unsigned long long)seen.dropped, (unsigned long long)sum);
}

/* Nothing was recorded before the kill: there may be no ring yet, or an unfinished one. */
static bool nothing_recorded(void)
{
	for (unsigned i = 0; i < THREADS; i++)
		if (atomic_load(&shared->threads[i].done))
			return false;
	return true;
}

static void recover_and_check(pid_t pid, bool whole)
{
	char ring[512], capture[512];
	if (nothing_recorded())
		return;
	STORM_NEED(storm_ring(&storm, pid, ring, sizeof ring), "no ring of process %d", (int)pid);
	STORM_NEED(storm_save(&storm, ring, capture, sizeof capture) == 0);
	check(capture, whole);
}

static void alone(bool whole)
{
	pid_t pid = start_writer(whole ? "64MiB" : "1MiB");
	storm_sleep_ns(storm_random() % (whole ? 8000000 : 20000000));
	end(pid);
	recover_and_check(pid, whole);
	storm_clear(&storm);
}

/* ---- with a watcher ---- */

static void log_line(void *arg, const char *line)
{
	(void)arg;
	if (getenv("DASHCAM_STORM_LOG"))
		fprintf(stderr, "watcher: %s\n", line);
}

static void watch(int ready)
{
	struct dc_watcher_config config;
	struct dc_watcher *w;
	char why[DC_WHY_BYTES];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dc_watcher_defaults(&config);
	config.dir = storm.rings;
	config.output = (struct dc_save_output){ .dir = storm.out, .writer_flags = DC_WRITER_PWRITE };
	config.budget = (struct dc_budget_limits){ 0 };
	config.settle = false;
	config.log = log_line;
	STORM_NEED(dc_watcher_open(&config, &w, why) == 0, "%s", why);
	STORM_NEED(write(ready, "r", 1) == 1);
	dc_watcher_loop(w);
	dc_watcher_close(w, false);
	_exit(0);
}

static pid_t start_watcher(void)
{
	int ready[2];
	char c;
	STORM_NEED(pipe(ready) == 0);
	pid_t pid = fork();
	STORM_NEED(pid >= 0, "%s", strerror(errno));
	if (pid == 0)
		watch(ready[1]);
	close(ready[1]);
	STORM_NEED(read(ready[0], &c, 1) == 1);
	close(ready[0]);
	return pid;
}

static bool find_capture(char *ret_path, size_t size)
{
	DIR *d = opendir(storm.out);
	struct dirent *e;
	bool found = false;
	while (d && !found && (e = readdir(d)))
		if ((found = strlen(e->d_name) > 5 && !strcmp(e->d_name + strlen(e->d_name) - 5, ".dcap")))
			snprintf(ret_path, size, "%s/%s", storm.out, e->d_name);
	if (d)
		closedir(d);
	return found;
}

/* How our child died only its parent knows for sure; the watcher may find "unknown" and leave the ring to us. */
static void watched(void)
{
	char capture[512];
	pid_t watcher = start_watcher(), pid = start_writer("64MiB");
	storm_sleep_ns(storm_random() % 4000000);
	end(watcher);
	watcher = start_watcher();
	storm_sleep_ns(storm_random() % 4000000);
	end(pid);
	if (storm_random() % 2) { /* once more, while it may be saving: what it leaves is half a file, the next one saves anew */
		storm_sleep_ns(storm_random() % 3000000);
		end(watcher);
		watcher = start_watcher();
	}
	for (unsigned i = 0; i < 20 && !find_capture(capture, sizeof capture); i++)
		storm_sleep_ns(50000000);
	end(watcher);
	if (find_capture(capture, sizeof capture))
		check(capture, true);
	else
		recover_and_check(pid, true);
	storm_clear(&storm);
}

static void together(void)
{
	pid_t watcher = start_watcher(), pid = start_writer("64MiB");
	bool first = storm_random() % 2;
	storm_sleep_ns(storm_random() % 8000000);
	end(first ? watcher : pid);
	storm_sleep_ns(storm_random() % 1000000);
	end(first ? pid : watcher);
	recover_and_check(pid, true);
	storm_clear(&storm);
}

int main(void)
{
	unsigned rounds = storm_rounds(200, 1000);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	STORM_NEED(shared != MAP_FAILED);
	storm_begin(&storm, "64MiB");
	for (unsigned i = 0; i < rounds; i++)
		alone(i % 2);
	for (unsigned i = 0; i < rounds / 10; i++)
		together();
	for (unsigned i = 0; i < rounds / 10; i++)
		watched();
	printf("%u kills\n", rounds + rounds / 10 * 2);
	storm_end(&storm);
	return 0;
}
