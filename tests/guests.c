/* SPDX-License-Identifier: MIT */
#include "tests/guests.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/decode.h"
#include "tests/scratch.h"

static char dir[SCRATCH_BYTES];

void guest_fail(const char *file, int line, const char *what)
{
	char text[512];
	int n = snprintf(text, sizeof text, "%s:%d: the app needs %s (errno %d)\n", file, line, what, errno);
	if (write(STDERR_FILENO, text, (size_t)n) < 0)
		_exit(98);
	_exit(99);
}

const char *guest_dir(void)
{
	if (!dir[0]) {
		scratch_memory("dcguest", dir);
		setenv("DASHCAM_DIR", dir, 1);
	}
	return dir;
}

void guest_clean(void)
{
	if (dir[0])
		scratch_remove(dir);
	dir[0] = 0;
}

int guest_teardown(void **state)
{
	(void)state;
	guest_clean();
	return 0;
}

bool guest_emulated(void)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	bool emulated = madvise(page, sizeof page, 9999) == 0; /* a kernel knows that it does not know that */
	if (emulated)
		print_message("not what an emulator can show\n");
	return emulated;
}

pid_t guest_start(void (*app)(void *arg), void *arg)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS};
	guest_dir();
	fflush(NULL);
	pid_t pid = fork();
	if (pid)
		return pid;
	for (size_t i = 0; !GUEST_SANITIZED && i < sizeof fatal / sizeof *fatal; i++)
		signal(fatal[i], SIG_DFL); /* cmocka's would go on with the next test */
	app(arg);
	exit(0);
}

int guest_wait(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

int guest_run(void (*app)(void *arg), void *arg)
{
	return guest_wait(guest_start(app, arg));
}

/* ---- reading ---- */

struct chunk {
	const uint8_t *at;
	uint32_t bytes;
	struct dc_chunk_header header;
};

static int by_lane_and_age(const void *a, const void *b)
{
	const struct dc_chunk_header *x = &((const struct chunk *)a)->header,
				     *y = &((const struct chunk *)b)->header;
	if (x->lane != y->lane)
		return x->lane < y->lane ? -1 : 1;
	if (x->first_event != y->first_event)
		return x->first_event < y->first_event ? -1 : 1;
	return x->start_units < y->start_units ? -1 : x->start_units > y->start_units;
}

static void args_text(const struct dc_event *e, char *text, size_t size)
{
	size_t at = 0;
	text[0] = 0;
	for (unsigned i = 0; i < e->arg_count; i++) {
		const char *key = e->info && e->info->keys[i] ? e->info->keys[i] : "";
		at += (size_t)snprintf(text + at, size - at, "%s%s=", i ? " " : "", key);
		at += dc_value_format(e, i, text + at, size - at);
	}
}

static void event_text(const struct dc_event *e, char *text, size_t size)
{
	text[0] = 0;
	if (e->kind == DC_KIND_LOG) {
		dc_event_format(e, text, size);
	} else if (e->kind == DC_KIND_THREAD) {
		snprintf(text, size, "%.16s", e->comm);
	} else if (e->kind == DC_KIND_CONTEXT) {
		for (unsigned i = 0; i < 16; i++)
			snprintf(text + 2 * i, size - 2 * i, "%02x", e->context.trace_id[i]);
		for (unsigned i = 0; i < 8; i++)
			snprintf(text + 32 + 2 * i, size - 32 - 2 * i, "%02x", e->context.span_id[i]);
		snprintf(text + 48, size - 48, "/%02x", e->context.flags);
	} else if (e->kind != DC_KIND_END && e->kind != DC_KIND_FLOW_IN && e->kind != DC_KIND_FLOW_OUT &&
		   e->kind != DC_KIND_STACK) {
		args_text(e, text, size);
	}
}

static int keep(void *arg, const struct dc_event *e)
{
	static char text[16384];
	struct guest_ring *r = arg;
	if ((r->count & (r->count - 1)) == 0)
		r->event = realloc(r->event, (r->count ? 2 * r->count : 1) * sizeof *r->event);
	event_text(e, text, sizeof text);
	r->event[r->count++] = (struct guest_event){
		.units = e->units,
		.start_units = e->start_units,
		.kind = e->kind,
		.implied = e->implied,
		.from_open = e->from_open,
		.depth = e->depth,
		.tid = e->tid,
		.serial = e->serial,
		.lane = e->lane,
		.site = e->site,
		.flow_id = e->kind == DC_KIND_FLOW_OUT || e->kind == DC_KIND_FLOW_IN ? e->flow_id : 0,
		.stack_count = e->kind == DC_KIND_STACK ? e->stack_count : 0,
		.line = e->info ? e->info->line : 0,
		.level = e->info ? e->info->level : 0,
		.name = strdup(e->info ? e->info->name : ""),
		.text = strdup(text),
	};
	return 0;
}

static void decode_lanes(struct guest_ring *r, struct chunk *chunks, size_t count,
			 const struct dc_schema *schema)
{
	static struct dc_lane_decoder d;
	uint32_t lane = ~0u;
	for (size_t i = 0; i < count; i++) {
		if (chunks[i].header.lane != lane) {
			if (lane != ~0u) {
				r->events += d.events;
				r->overwritten += d.overwritten;
			}
			dc_lane_init(&d, schema);
			lane = chunks[i].header.lane;
		}
		if (dc_lane_decode(&d, chunks[i].at, chunks[i].bytes, keep, r))
			r->broken++;
	}
	if (lane != ~0u) {
		r->events += d.events;
		r->overwritten += d.overwritten;
	}
}

static size_t chunks_of(const struct guest_ring *r, const uint8_t *map, struct chunk *chunks)
{
	const struct dc_ring_header *h = &r->header;
	const struct dc_chunk_entry *entries = (const void *)(map + h->states_off);
	size_t n = 0;
	for (uint32_t i = 0; i < h->chunks_grown && i < h->chunk_cap; i++) {
		uint64_t state = __atomic_load_n(&entries[i].state, __ATOMIC_ACQUIRE);
		if (dc_state_bytes(state) < sizeof(struct dc_chunk_header))
			continue;
		chunks[n].at = r->bytes + (size_t)i * h->chunk_bytes;
		chunks[n].bytes = dc_state_bytes(state);
		memcpy(&chunks[n].header, chunks[n].at, sizeof chunks[n].header);
		n++;
	}
	qsort(chunks, n, sizeof *chunks, by_lane_and_age);
	return n;
}

static void lanes_copy(struct guest_ring *r, const uint8_t *map)
{
	const struct dc_ring_header *h = &r->header;
	size_t n = h->lanes_used < h->lane_cap ? h->lanes_used : h->lane_cap;
	r->lane = calloc(n + 1, sizeof *r->lane);
	memcpy(r->lane, map + h->lanes_off, n * sizeof *r->lane);
	r->dropped = h->lost_early + h->lost_lanes;
	for (size_t i = 0; i < n; i++)
		r->dropped += r->lane[i].dropped;
}

static void crash_copy(struct guest_ring *r, const uint8_t *map)
{
	const struct dc_ring_header *h = &r->header;
	if (!h->crash_off || !(h->flags & DC_RING_CRASHED))
		return;
	memcpy(&r->crash, map + h->crash_off, sizeof r->crash);
	r->crash_stack = malloc(r->crash.stack_bytes + 1);
	memcpy(r->crash_stack, map + h->crash_off + sizeof r->crash, r->crash.stack_bytes);
}

static bool ring_load(struct guest_ring *r)
{
	struct stat st;
	int fd = open(r->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool ok = fstat(fd, &st) == 0 && pread(fd, &r->header, sizeof r->header, 0) == sizeof r->header &&
		  r->header.magic == DC_RING_MAGIC && (uint64_t)st.st_size >= r->header.file_bytes;
	uint8_t *map = ok ? mmap(NULL, r->header.file_bytes, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
	close(fd);
	if (map == MAP_FAILED)
		return false;
	const struct dc_ring_header *h = &r->header;
	struct dc_schema *schema = NULL;
	struct chunk *chunks = calloc(h->chunks_grown + 1, sizeof *chunks);
	r->bytes_count = (size_t)h->chunks_grown * h->chunk_bytes;
	r->bytes = malloc(r->bytes_count + 1);
	memcpy(r->bytes, map + h->chunks_off, r->bytes_count);
	lanes_copy(r, map);
	crash_copy(r, map);
	if (dc_schema_new((const void *)(map + h->sites_off), h->sites_used,
			  (const char *)map + h->strings_off, h->strings_bytes, &schema) == 0)
		decode_lanes(r, chunks, chunks_of(r, map, chunks), schema);
	else
		r->broken++;
	dc_schema_free(schema);
	free(chunks);
	munmap(map, r->header.file_bytes);
	return true;
}

static int by_start(const void *a, const void *b)
{
	const struct guest_ring *x = a, *y = b;
	return x->header.started_tick < y->header.started_tick
		       ? -1
		       : x->header.started_tick > y->header.started_tick;
}

void guest_rings(struct guest_rings *ret_rings)
{
	DIR *d = opendir(guest_dir());
	struct dirent *e;
	memset(ret_rings, 0, sizeof *ret_rings);
	while (d && (e = readdir(d))) {
		size_t n = strlen(e->d_name);
		struct guest_ring *r = &ret_rings->ring[ret_rings->count];
		if (n < 5 || strcmp(e->d_name + n - 5, ".ring") != 0 ||
		    ret_rings->count == sizeof ret_rings->ring / sizeof ret_rings->ring[0])
			continue;
		snprintf(r->path, sizeof r->path, "%s/%s", dir, e->d_name);
		if (ring_load(r))
			ret_rings->count++;
	}
	if (d)
		closedir(d);
	qsort(ret_rings->ring, ret_rings->count, sizeof *ret_rings->ring, by_start);
}

void guest_rings_free(struct guest_rings *rings)
{
	for (size_t i = 0; i < rings->count; i++) {
		struct guest_ring *r = &rings->ring[i];
		for (size_t k = 0; k < r->count; k++) {
			free(r->event[k].name);
			free(r->event[k].text);
		}
		free(r->event);
		free(r->lane);
		free(r->crash_stack);
		free(r->bytes);
	}
	rings->count = 0;
}

struct guest_ring *guest_only(struct guest_rings *rings)
{
	guest_rings(rings);
	assert_int_equal(rings->count, 1);
	assert_int_equal(rings->ring[0].broken, 0);
	return &rings->ring[0];
}

struct guest_ring *guest_ring_of(struct guest_rings *rings, pid_t pid)
{
	for (size_t i = 0; i < rings->count; i++)
		if (rings->ring[i].header.pid == (uint32_t)pid)
			return &rings->ring[i];
	return NULL;
}

const struct guest_event *guest_find(const struct guest_ring *r, unsigned kind, const char *name, size_t n)
{
	for (size_t i = 0; i < r->count; i++) {
		const struct guest_event *e = &r->event[i];
		if ((!kind || e->kind == kind) && (!name || strcmp(e->name, name) == 0) && n-- == 0)
			return e;
	}
	return NULL;
}

size_t guest_count(const struct guest_ring *r, unsigned kind, const char *name)
{
	size_t n = 0;
	for (size_t i = 0; i < r->count; i++)
		n += (!kind || r->event[i].kind == kind) && (!name || strcmp(r->event[i].name, name) == 0);
	return n;
}

void guest_switch(const char *ring_path, const char *site_name, uint32_t word)
{
	struct dc_ring_header h;
	static struct dc_ring_site sites[DC_SITE_MAX];
	static char strings[DC_STRINGS_BYTES];
	int fd = open(ring_path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0 && pread(fd, &h, sizeof h, 0) == sizeof h);
	assert_true(pread(fd, sites, h.site_cap * sizeof *sites, (off_t)h.sites_off) > 0);
	assert_true(pread(fd, strings, h.strings_bytes, (off_t)h.strings_off) > 0);
	uint32_t found = 0;
	for (uint32_t i = 1; i < h.sites_used; i++) {
		off_t at = (off_t)(h.control_off + offsetof(struct dc_ring_control, enable) + 4 * i);
		if (strcmp(strings + sites[i].name, site_name) != 0)
			continue;
		assert_int_equal(pwrite(fd, &word, 4, at), 4);
		found++;
	}
	close(fd);
	assert_true(found > 0);
}
