/* SPDX-License-Identifier: MIT */
#include "ringfile.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/event.h"
#include "ipc/registers.h"

#define EVENT_BYTES 8u
#define NEED(x)                                                                                              \
	do {                                                                                                 \
		if (!(x)) {                                                                                  \
			perror("ringfile: " #x);                                                             \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static uint64_t start_time_of_self(void)
{
	char text[2048];
	FILE *f = fopen("/proc/self/stat", "r");
	char *at, *save = NULL;
	unsigned field = 2;

	NEED(f && fgets(text, sizeof(text), f));
	fclose(f);
	at = strrchr(text, ')');
	for (at = strtok_r(at, " ", &save); at && ++field < 23;)
		at = strtok_r(NULL, " ", &save);
	return strtoull(at, NULL, 10);
}

uint64_t ringfile_now(const struct ringfile *r)
{
	struct timespec ts;

	(void)r;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec) >> 2;
}

static uint64_t page(uint64_t n)
{
	return (n + 4095) & ~UINT64_C(4095);
}

static void fill_header(struct dc_ring_header *h, uint32_t chunks, uint32_t chunk_bytes)
{
	struct stat ns;

	*h = (struct dc_ring_header){.version = DC_RING_VERSION,
				     .header_bytes = sizeof(*h),
				     .site_cap = 256,
				     .strings_bytes = 65536,
				     .module_cap = 64,
				     .lane_cap = 256,
				     .trigger_cap = DC_TRIGGER_SLOTS,
				     .chunk_bytes = chunk_bytes,
				     .chunk_cap = chunks,
				     .clock = DC_CLOCK_MONOTONIC,
				     .tick_shift = 2,
				     .pid = (uint32_t)getpid(),
				     .uid = getuid(),
				     .gid = getgid(),
				     .start_time = start_time_of_self(),
				     .window_units = UINT64_C(30000000000) >> 2,
				     .name = "ringfile",
				     .sites_used = 2,
				     .strings_used = 16,
				     .chunks_grown = chunks};
	NEED(stat("/proc/self/ns/pid", &ns) == 0);
	h->pid_namespace = ns.st_ino;
	h->control_off = 4096;
	h->sites_off = h->control_off + sizeof(struct dc_ring_control);
	h->strings_off = page(h->sites_off + h->site_cap * sizeof(struct dc_ring_site));
	h->modules_off = page(h->strings_off + h->strings_bytes);
	h->lanes_off = page(h->modules_off + h->module_cap * sizeof(struct dc_ring_module));
	h->triggers_off = page(h->lanes_off + h->lane_cap * sizeof(struct dc_ring_lane));
	h->states_off = page(h->triggers_off + h->trigger_cap * sizeof(struct dc_ring_trigger));
	h->chunks_off = page(h->states_off + chunks * sizeof(struct dc_chunk_entry));
	h->crash_off = h->chunks_off + (uint64_t)chunks * chunk_bytes;
	h->crash_bytes = 2 * 4096;
	h->samples_off = h->crash_off + h->crash_bytes;
	h->samples_bytes = 8 * 4096;
	h->file_bytes = h->samples_off + h->samples_bytes;
}

static void fill_site(struct ringfile *r)
{
	struct dc_ring_site *site = (void *)(r->map + r->header->sites_off);
	char *strings = (char *)r->map + r->header->strings_off;

	memcpy(strings + 1, "tick", 5);
	memcpy(strings + 6, "n", 2);
	site[1] = (struct dc_ring_site){.name = 1, .kind = DC_KIND_INSTANT, .arg_count = 1, .published = 1};
	site[1].types[0] = DC_TYPE_U64;
	site[1].keys[0] = 6;
}

void ringfile_make(struct ringfile *r, const char *dir, uint32_t chunks, uint32_t chunk_bytes)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct dc_ring_header h;
	struct timespec ts, real;
	uint32_t random;

	fill_header(&h, chunks, chunk_bytes);
	NEED(getrandom(&random, sizeof(random), 0) == sizeof(random));
	snprintf(r->dir, sizeof(r->dir), "%s", dir);
	snprintf(r->name, sizeof(r->name), "%u.%llu.%08x.ring", h.pid, (unsigned long long)h.start_time,
		 random);
	snprintf(r->path, sizeof(r->path), "%s/%s", r->dir, r->name);
	r->fd = open(r->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	NEED(r->fd >= 0 && ftruncate(r->fd, (off_t)h.file_bytes) == 0 &&
	     fcntl(r->fd, F_OFD_SETLK, &lock) == 0);
	r->map_bytes = h.file_bytes;
	r->map = mmap(NULL, r->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	NEED(r->map != MAP_FAILED);
	r->header = (void *)r->map;
	*r->header = h;
	r->control = (void *)(r->map + h.control_off);
	r->lanes = (void *)(r->map + h.lanes_off);
	r->triggers = (void *)(r->map + h.triggers_off);
	r->entries = (void *)(r->map + h.states_off);
	fill_site(r);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	clock_gettime(CLOCK_REALTIME, &real);
	r->header->started_tick = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	r->header->anchors[0] = (struct dc_anchor){.tick = r->header->started_tick,
						   .monotonic_ns = (int64_t)r->header->started_tick,
						   .realtime_ns = real.tv_sec * INT64_C(1000000000) +
								  real.tv_nsec,
						   .boottime_ns = (int64_t)r->header->started_tick};
	r->header->anchors_used = 1;
	__atomic_store_n(&r->header->magic, DC_RING_MAGIC, __ATOMIC_RELEASE);
}

void ringfile_unlock(struct ringfile *r)
{
	struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	NEED(fcntl(r->fd, F_OFD_SETLK, &lock) == 0);
}

void ringfile_remove(struct ringfile *r)
{
	munmap(r->map, r->map_bytes);
	close(r->fd);
	unlink(r->path);
}

void ringfile_writer_init(struct ringfile_writer *w, struct ringfile *r, uint32_t lane)
{
	*w = (struct ringfile_writer){.ring = r, .lane = lane, .chunk = ~0u};
	r->lanes[lane].tid = (uint32_t)getpid() + lane;
	r->lanes[lane].serial = 1;
	r->lanes[lane].chunk = ~0u;
	if (__atomic_load_n(&r->header->lanes_used, __ATOMIC_RELAXED) <= lane)
		__atomic_store_n(&r->header->lanes_used, lane + 1, __ATOMIC_RELAXED);
}

static uint8_t *chunk_at(struct ringfile *r, uint32_t index)
{
	return r->map + r->header->chunks_off + (uint64_t)index * r->header->chunk_bytes;
}

static void begin_chunk(struct ringfile_writer *w, uint32_t index, uint64_t claimed)
{
	struct ringfile *r = w->ring;
	struct dc_chunk_header *h = (void *)chunk_at(r, index);

	atomic_thread_fence(memory_order_release); /* chunk-reuse */
	*h = (struct dc_chunk_header){.first_event = w->next_event,
				      .start_units = ringfile_now(r),
				      .generation = dc_state_generation(claimed),
				      .lane = w->lane,
				      .tid = r->lanes[w->lane].tid,
				      .serial = 1};
	w->chunk = index;
	w->state = claimed + sizeof(*h);
	r->entries[index].lane = w->lane;
	r->lanes[w->lane].chunk = index;
	__atomic_store_n(&r->entries[index].state, w->state, __ATOMIC_RELEASE);
}

static bool claim(struct ringfile_writer *w)
{
	struct ringfile *r = w->ring;

	for (uint32_t tries = 0; tries < r->header->chunk_cap; tries++) {
		uint32_t index = __atomic_fetch_add(&r->header->hand, 1, __ATOMIC_RELAXED) %
				 r->header->chunk_cap;
		uint64_t s = __atomic_load_n(&r->entries[index].state, __ATOMIC_RELAXED);
		uint64_t claimed = dc_state_claimed(s);

		if (s & DC_CHUNK_OWNED ||
		    !__atomic_compare_exchange_n(&r->entries[index].state, &s, claimed, false,
						 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			continue;
		begin_chunk(w, index, claimed);
		return true;
	}
	return false;
}

void ringfile_seal(struct ringfile_writer *w)
{
	struct dc_chunk_entry *e = &w->ring->entries[w->chunk];

	if (w->chunk == ~0u)
		return;
	e->sealed = (uint32_t)(ringfile_now(w->ring) >> DC_COARSE_SHIFT);
	__atomic_store_n(&e->state, w->state & ~DC_CHUNK_OWNED, __ATOMIC_RELEASE);
	w->chunk = ~0u;
	w->ring->lanes[w->lane].chunk = ~0u;
}

/* tag, delta 1, site 1, code byte "3 bytes follow", the number's low 3 bytes: 8 bytes in all */
static void encode(uint8_t *at, uint64_t number)
{
	const uint8_t bytes[EVENT_BYTES] = {
		DC_KIND_INSTANT,        1, 1, 0, 3, (uint8_t)number, (uint8_t)(number >> 8),
		(uint8_t)(number >> 16)};

	memcpy(at, bytes, sizeof(bytes));
}

bool ringfile_event(struct ringfile_writer *w)
{
	const uint32_t limit = w->ring->header->chunk_bytes - DC_CHUNK_SLACK;

	if (w->chunk != ~0u && dc_state_bytes(w->state) + EVENT_BYTES > limit)
		ringfile_seal(w);
	if (w->chunk == ~0u && !claim(w))
		return false;
	encode(chunk_at(w->ring, w->chunk) + dc_state_bytes(w->state), w->next_event++);
	w->state += DC_CHUNK_EVENT_ONE + EVENT_BYTES;
	__atomic_store_n(&w->ring->entries[w->chunk].state, w->state, __ATOMIC_RELEASE);
	return true;
}

bool ringfile_chunk_good(const uint8_t *chunk, uint32_t bytes, uint32_t events)
{
	struct dc_chunk_header h;
	uint8_t want[EVENT_BYTES];

	memcpy(&h, chunk, sizeof(h));
	if (bytes != sizeof(h) + events * EVENT_BYTES)
		return false;
	for (uint32_t i = 0; i < events; i++) {
		encode(want, h.first_event + i);
		if (memcmp(chunk + sizeof(h) + i * EVENT_BYTES, want, EVENT_BYTES) != 0)
			return false;
	}
	return true;
}

void ringfile_trigger(struct ringfile *r, const char *text)
{
	const uint64_t seq = r->header->trigger_seq + 1;
	struct dc_ring_trigger *t = &r->triggers[(seq - 1) % r->header->trigger_cap];

	__atomic_store_n(&t->seq, 0, __ATOMIC_RELEASE);
	t->tick = ringfile_now(r) << r->header->tick_shift;
	t->tid = (uint32_t)getpid();
	t->site = 1;
	t->reason = DC_TRIGGER_API;
	snprintf(t->text, sizeof(t->text), "%s", text);
	__atomic_store_n(&t->seq, seq, __ATOMIC_RELEASE);
	__atomic_store_n(&r->header->trigger_seq, seq, __ATOMIC_RELEASE);
}

struct dc_ring_sample *ringfile_sample(struct ringfile *r, uint32_t tid, uint64_t tick, uint32_t stack_bytes)
{
	struct dc_ring_samples *part = (void *)(r->map + r->header->samples_off);
	const uint64_t room = r->header->samples_bytes - sizeof(*part);
	const uint32_t bytes = dc_ring_sample_bytes(DC_REGS_X86, stack_bytes);
	struct dc_ring_sample *s;
	uint8_t *stack;

	if (part->written % room + bytes > room)
		part->written += room - part->written % room;
	s = (void *)((uint8_t *)(part + 1) + part->written % room);
	stack = (uint8_t *)(s + 1) + DC_REGS_X86 * 8;
	memset(s, 0, bytes);
	*s = (struct dc_ring_sample){.at = part->written,
				     .tick = tick,
				     .bytes = bytes,
				     .tid = tid,
				     .kind = DC_RING_SAMPLE_CPU,
				     .reg_count = DC_REGS_X86,
				     .stack_bytes = stack_bytes,
				     .periods = 2,
				     .hz = 100};
	for (uint32_t i = 0; i < stack_bytes; i++)
		stack[i] = (uint8_t)i;
	s->check = dc_ring_sample_check(s, bytes);
	part->written += bytes;
	part->taken++;
	return s;
}
