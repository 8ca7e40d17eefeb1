/* SPDX-License-Identifier: MIT */
#include "storm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <dashcam.h>

#include "persist/capture.h"
#include "trigger/recover.h"

static const char *const storm_texts[] = { "", "a", "some words", "rather more words than fit into sixteen bytes" };

void storm_fail(const char *file, int line, const char *condition, const char *format, ...)
{
	va_list args;
	fprintf(stderr, "%s:%d: not so: %s;", file, line, condition);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	abort();
}

uint64_t storm_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void storm_sleep_ns(uint64_t ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
	nanosleep(&ts, NULL);
}

bool storm_long(void)
{
	return getenv("DASHCAM_LONG") != NULL;
}

unsigned storm_rounds(unsigned usual, unsigned many)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)
	usual /= 4;
#endif
	return storm_long() ? many : usual;
}

uint64_t storm_random(void)
{
	static uint64_t x;
	if (!x) {
		const char *seed = getenv("DASHCAM_SEED");
		x = seed ? strtoull(seed, NULL, 0) : storm_now_ns();
		printf("DASHCAM_SEED=%llu\n", (unsigned long long)x);
		x |= 1;
	}
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

/* ---- directories ---- */

static void empty(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

void storm_begin(struct storm *s, const char *memory)
{
	scratch_memory("dcstorm", s->rings);
	scratch_memory("dcstorm-out", s->out);
	setenv("DASHCAM_DIR", s->rings, 1);
	setenv("DASHCAM_MEMORY", memory, 1);
}

void storm_clear(struct storm *s)
{
	empty(s->rings);
	empty(s->out);
}

void storm_end(struct storm *s)
{
	scratch_remove(s->rings);
	scratch_remove(s->out);
}

bool storm_ring(const struct storm *s, int pid, char *ret_path, size_t size)
{
	DIR *d = opendir(s->rings);
	struct dirent *e;
	unsigned found = 0;
	while (d && (e = readdir(d))) {
		if (!strstr(e->d_name, ".ring") || (pid && atoi(e->d_name) != pid))
			continue;
		snprintf(ret_path, size, "%s/%s", s->rings, e->d_name);
		found++;
	}
	if (d)
		closedir(d);
	return found == 1;
}

unsigned storm_rings(const struct storm *s, uint64_t *ret_bytes)
{
	DIR *d = opendir(s->rings);
	struct dirent *e;
	struct stat st;
	unsigned found = 0;
	*ret_bytes = 0;
	while (d && (e = readdir(d)))
		if (strstr(e->d_name, ".ring") && fstatat(dirfd(d), e->d_name, &st, 0) == 0) {
			*ret_bytes += (uint64_t)st.st_blocks * 512;
			found++;
		}
	if (d)
		closedir(d);
	return found;
}

/* ---- events ---- */

static uint64_t sum_of(uint64_t id)
{
	id *= 0x9e3779b97f4a7c15u;
	return id >> (8 + (id & 31)); /* of all lengths */
}

void storm_event(unsigned thread, uint64_t n)
{
	uint64_t id = (uint64_t)thread << 48 | n;
	if (n % 16 == 15)
		DC_LOG(DC_INFO, "storm %lx %s %lx", id, storm_texts[n / 16 % 4], sum_of(id));
	else
		DC_INSTANT("storm", "id", id, "sum", sum_of(id));
}

/* ---- saving ---- */

static int save_living(struct dc_ring *ring, const struct dc_save_output *output, struct dc_save **ret_save)
{
	CLEANUP(dc_save) struct dc_save *save = NULL;
	struct dc_incident incident;
	/* a second ahead: in a ring that turns over in a millisecond nothing may be left of "now" once it is read */
	const struct dc_window window = { .after_ns = 1000000000 };
	dc_incident_init(&incident, DC_REASON_COMMAND, "race test");
	int r = dc_incident_window(&incident, ring, &window);
	if (r == 0)
		r = dc_save_new(&incident, output, &save);
	if (r == 0)
		r = dc_save_add(save, ring);
	if (r == 0)
		r = dc_save_first(save);
	if (r == 0)
		r = dc_save_last(save, false);
	if (r == 0)
		*ret_save = TAKE(save);
	return r;
}

int storm_save(const struct storm *s, const char *ring_path, char *ret_path, size_t size)
{
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_save) struct dc_save *save = NULL;
	struct dc_save_output output = { .dir = s->out, .writer_flags = DC_WRITER_PWRITE };
	char why[DC_WHY_BYTES] = "";
	int r = dc_ring_open(AT_FDCWD, ring_path, &ring, why);
	if (r == 0)
		r = dc_ring_alive(ring) == 1 ? save_living(ring, &output, &save) :
					       dc_recover(ring_path, &output, &save, why);
	if (r < 0)
		fprintf(stderr, "%s: %s (%s)\n", ring_path, strerror(-r), why);
	else
		dc_save_path(save, ret_path, size);
	return r;
}

/* ---- reading ---- */

struct reading {
	struct storm_seen *seen;
	const char *path;
	uint64_t lane_next[STORM_THREADS];
};

static int check(void *arg, const struct dc_event *e)
{
	struct reading *r = arg;
	if (e->kind != DC_KIND_OPEN && e->kind != DC_KIND_THREAD && !e->implied)
		r->seen->events++;
	if (!e->info || (e->kind != DC_KIND_INSTANT && e->kind != DC_KIND_LOG) || strncmp(e->info->name, "storm", 5) != 0)
		return 0;
	uint64_t id = e->args[0].u, n = id & 0xffffffffffff;
	unsigned thread = (unsigned)(id >> 48), last = e->arg_count - 1u;
	STORM_NEED(thread < STORM_THREADS && e->args[last].u == sum_of(id), "event %llx in %s", (unsigned long long)id,
		   r->path);
	if (e->kind == DC_KIND_LOG) {
		const char *text = storm_texts[n / 16 % 4];
		STORM_NEED(n % 16 == 15 && e->args[1].text.length == strlen(text) &&
				   memcmp(e->args[1].text.bytes, text, strlen(text)) == 0,
			   "text of event %llx in %s", (unsigned long long)id, r->path);
	}
	struct storm_thread *t = &r->seen->threads[thread];
	STORM_NEED(!t->events || n >= t->next || thread >= STORM_UNORDERED, "thread %u: event %llu after %llu in %s", thread, (unsigned long long)n,
		   (unsigned long long)t->next - 1, r->path);
	if (!t->events)
		t->first = n;
	else if (thread < STORM_UNORDERED)
		t->missing += n - t->next;
	t->next = n + 1;
	t->sum += n;
	t->events++;
	return 0;
}

void storm_read(const char *path, struct storm_seen *ret_seen)
{
	struct reading r = { .seen = ret_seen, .path = path };
	struct dc_capture *c;
	struct dc_capture_totals totals;
	const struct dc_fault *faults;
	char why[160];
	memset(ret_seen, 0, sizeof *ret_seen);
	STORM_NEED(dc_capture_open(path, &c, why) == 0, "%s", why);
	STORM_NEED(dc_capture_process_count(c) == 1, "%u processes", dc_capture_process_count(c));
	STORM_NEED(dc_capture_each(c, 0, check, &r) == 0);
	STORM_NEED(dc_capture_totals(c, 0, &totals) == 0);
	unsigned wrong = dc_capture_faults(c, &faults);
	STORM_NEED(wrong == 0, "%s: %s", path, faults[0].text);
	ret_seen->overwritten = totals.overwritten;
	ret_seen->dropped = totals.dropped;
	ret_seen->discarded = totals.discarded;
	dc_capture_close(c);
}
