/* SPDX-License-Identifier: MIT */
/*
 * A block is laid out in one of the output's buffers as header, payload, zeros up to the alignment, and sent.
 * Only a block larger than a buffer (the tables of a big process) is spread over several.
 */
#include "persist/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/block.h"
#include "persist/compress.h"
#include "persist/fields.h"
#include "persist/output.h"

#define NAME_MAX_BYTES 256

struct dc_writer {
	int dir_fd;
	int fd;
	int error;
	bool settled;
	bool reserved; /* between dc_writer_reserve() and dc_writer_commit() */
	uint64_t align;
	uint32_t sequence;
	struct dc_output *output;
	struct dc_end_block totals;
	struct dc_compressor *compressor; /* made when first needed */
	int level;
	char name[NAME_MAX_BYTES];
	char part[NAME_MAX_BYTES];
};

static int stick(struct dc_writer *w, int r)
{
	if (r < 0 && !w->error)
		w->error = r;
	return w->error;
}

static void writer_free(struct dc_writer *w)
{
	dc_output_free(w->output);
	dc_compressor_free(w->compressor);
	if (w->fd >= 0)
		close(w->fd);
	if (w->dir_fd >= 0)
		close(w->dir_fd);
	free(w);
}

/* --- the .part file: locked by its writer, so that a lock which can be had tells a dead writer --- */

int dc_writer_reclaim(int dir_fd, const char *part)
{
	CLEANUP(close_fd) int fd = openat(dir_fd, part, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return unlinkat(dir_fd, part, 0) < 0 ? -errno : 0;
}

static int create_part(struct dc_writer *w)
{
	struct stat st;

	w->fd = openat(w->dir_fd, w->part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (w->fd < 0)
		return -errno;
	/* Somebody may have taken the file for a dead writer's before it was locked. */
	if (flock(w->fd, LOCK_EX | LOCK_NB) < 0 || fstat(w->fd, &st) < 0 || st.st_nlink == 0) {
		close(w->fd);
		w->fd = -1;
		return -EEXIST;
	}
	return 0;
}

static int set_names(struct dc_writer *w, const char *name)
{
	size_t length = strlen(name);

	if (length + sizeof ".part" > sizeof w->part)
		return -ENAMETOOLONG;
	if (length <= 5 || strcmp(name + length - 5, ".dcap") || strchr(name, '/'))
		return -EINVAL;
	memcpy(w->name, name, length + 1);
	snprintf(w->part, sizeof w->part, "%s.part", name);
	return 0;
}

/* A new capture must not replace one that is there; a settled one is made to. */
static int refuse_existing(const struct dc_writer *w)
{
	struct stat st;

	if (w->settled || fstatat(w->dir_fd, w->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return -EEXIST;
}

static int open_files(struct dc_writer *w, int dir_fd, const char *name)
{
	int r = set_names(w, name);

	if (r < 0)
		return r;
	/* Opened anew rather than duplicated: @dir_fd may be O_PATH or AT_FDCWD, and we want to fsync it. */
	w->dir_fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->dir_fd < 0)
		return -errno;
	r = refuse_existing(w);
	if (r < 0)
		return r;
	r = create_part(w);
	if (r == -EEXIST && dc_writer_reclaim(w->dir_fd, w->part) == 0)
		r = create_part(w);
	return r;
}

static uint32_t output_flags(uint32_t flags)
{
	if (flags & DC_WRITER_SETTLED)
		return 0;
	return flags & DC_WRITER_PWRITE ? DC_OUTPUT_DIRECT : DC_OUTPUT_DIRECT | DC_OUTPUT_URING;
}

static int begin_file(struct dc_writer *w, uint32_t flags, unsigned queue, const struct dc_file_block *file)
{
	int r = dc_output_new(w->fd, output_flags(flags), w->settled ? 2 : queue, &w->output);

	return r < 0 ? r : dc_writer_block(w, DC_BLOCK_FILE, DC_PROCESS_NONE, file, sizeof *file);
}

int dc_writer_open_as(int dir_fd, const char *name, uint32_t flags, unsigned queue,
		      const struct dc_file_block *file, struct dc_writer **ret_writer)
{
	struct dc_writer *w = calloc(1, sizeof *w);
	int r;

	if (!w)
		return -ENOMEM;
	w->dir_fd = w->fd = -1;
	w->level = 3;
	w->settled = flags & DC_WRITER_SETTLED;
	w->align = w->settled ? DC_BLOCK_ALIGN : DC_RAW_ALIGN;
	r = open_files(w, dir_fd, name);
	if (r < 0) {
		writer_free(w);
		return r;
	}
	r = begin_file(w, flags, queue, file);
	if (r < 0) {
		dc_writer_close(w, false);
		return r;
	}
	*ret_writer = w;
	return 0;
}

int dc_writer_open(int dir_fd, const char *name, uint32_t flags, unsigned queue, const uint8_t capture_id[16],
		   struct dc_writer **ret_writer)
{
	struct dc_file_block file = {.version = DC_FORMAT_VERSION, .settled = !!(flags & DC_WRITER_SETTLED)};
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	file.created_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
	memcpy(file.capture_id, capture_id, sizeof file.capture_id);
	snprintf(file.writer, sizeof file.writer, "dashcam %s", DASHCAM_VERSION);
	return dc_writer_open_as(dir_fd, name, flags, queue, &file, ret_writer);
}

int dc_writer_owner(struct dc_writer *w, uint32_t uid, uint32_t gid)
{
	return stick(w, fchown(w->fd, uid, gid) < 0 ? -errno : 0);
}

const char *dc_writer_method(const struct dc_writer *w)
{
	return dc_output_method(w->output);
}

/* --- blocks --- */

void *dc_writer_reserve(struct dc_writer *w)
{
	uint8_t *buffer = w->error ? NULL : dc_output_buffer(w->output);

	if (!buffer) {
		stick(w, dc_output_error(w->output));
		return NULL;
	}
	w->reserved = true;
	return buffer + sizeof(struct dc_block_header);
}

static struct dc_block_header header_of(struct dc_writer *w, uint16_t type, uint16_t flags, uint32_t process,
					const void *payload, size_t stored, size_t plain)
{
	struct dc_block_header h = {.type = type,
				    .flags = flags,
				    .process = process,
				    .sequence = w->sequence,
				    .stored_bytes = stored,
				    .plain_bytes = plain};

	dc_block_seal(&h, payload, w->align);
	return h;
}

/* Send the buffer that @payload was reserved in. */
static int send_reserved(struct dc_writer *w, uint16_t type, uint16_t flags, uint32_t process,
			 uint8_t *payload, size_t stored, size_t plain)
{
	struct dc_block_header h = header_of(w, type, flags, process, payload, stored, plain);

	memcpy(payload - sizeof h, &h, sizeof h);
	memset(payload + stored, 0, h.next - sizeof h - stored);
	w->reserved = false;
	w->sequence++;
	return stick(w, dc_output_send(w->output, h.next));
}

/* A block larger than a buffer. */
static int send_spread(struct dc_writer *w, const struct dc_block_header *h, const uint8_t *payload)
{
	size_t left = h->stored_bytes, used = sizeof *h;
	uint64_t to_send = h->next;

	while (to_send) {
		uint8_t *buffer = dc_output_buffer(w->output);
		size_t size = to_send < DC_OUTPUT_BUFFER_BYTES ? to_send : DC_OUTPUT_BUFFER_BYTES;
		size_t take = left < size - used ? left : size - used;

		if (!buffer)
			return stick(w, dc_output_error(w->output));
		if (used)
			memcpy(buffer, h, sizeof *h);
		memcpy(buffer + used, payload, take);
		memset(buffer + used + take, 0, size - used - take);
		if (stick(w, dc_output_send(w->output, size)) < 0)
			return w->error;
		payload += take, left -= take, to_send -= size, used = 0;
	}
	w->sequence++;
	return 0;
}

void dc_writer_expect(struct dc_writer *w, uint64_t bytes)
{
	dc_output_expect(w->output, bytes);
}

void dc_writer_hurry(struct dc_writer *w, bool hurry)
{
	dc_output_hurry(w->output, hurry);
}

int dc_writer_commit(struct dc_writer *w, uint16_t type, uint32_t process, size_t bytes)
{
	uint8_t *payload;

	if (w->error)
		return w->error;
	assert(w->reserved && bytes <= DC_WRITER_PAYLOAD_MAX);
	payload = (uint8_t *)dc_output_buffer(w->output) + sizeof(struct dc_block_header);
	return send_reserved(w, type, 0, process, payload, bytes, bytes);
}

static int write_block(struct dc_writer *w, uint16_t type, uint16_t flags, uint32_t process,
		       const void *payload, size_t stored, size_t plain)
{
	struct dc_block_header h;
	void *to;

	if (w->error)
		return w->error;
	assert(!w->reserved);
	if (plain > DC_BLOCK_PLAIN_MAX || stored > DC_BLOCK_PLAIN_MAX)
		return stick(w, -E2BIG);
	if (stored > DC_WRITER_PAYLOAD_MAX) {
		h = header_of(w, type, flags, process, payload, stored, plain);
		return send_spread(w, &h, payload);
	}
	to = dc_writer_reserve(w);
	if (!to)
		return w->error;
	if (stored)
		memcpy(to, payload, stored);
	return send_reserved(w, type, flags, process, to, stored, plain);
}

int dc_writer_block(struct dc_writer *w, uint16_t type, uint32_t process, const void *payload, size_t bytes)
{
	return write_block(w, type, 0, process, payload, bytes, bytes);
}

int dc_writer_block_stored(struct dc_writer *w, uint16_t type, uint16_t flags, uint32_t process, const void *stored,
			   size_t bytes, size_t plain_bytes)
{
	return write_block(w, type, flags, process, stored, bytes, plain_bytes);
}

void dc_writer_level(struct dc_writer *w, int zstd_level)
{
	w->level = zstd_level;
}

int dc_writer_block_zstd(struct dc_writer *w, uint16_t type, uint32_t process, const void *payload,
			 size_t bytes)
{
	CLEANUP(free) void *packed = malloc(bytes ? bytes : 1);
	size_t packed_bytes;
	int r;

	if (w->error)
		return w->error;
	if (!packed)
		return stick(w, -ENOMEM);
	if (!w->compressor && stick(w, dc_compressor_new(w->level, &w->compressor)) < 0)
		return w->error;
	/* Room for no more than the plain bytes: what does not shrink is stored as it is. */
	r = dc_compress(w->compressor, payload, bytes, packed, bytes, &packed_bytes);
	if (r == -ENOBUFS)
		return dc_writer_block(w, type, process, payload, bytes);
	if (r < 0)
		return stick(w, r);
	return write_block(w, type, DC_BLOCK_ZSTD, process, packed, packed_bytes, bytes);
}

int dc_writer_incident(struct dc_writer *w, const struct dc_incident *incident)
{
	uint8_t fields[DC_FIELDS_MAX];

	return dc_writer_block(w, DC_BLOCK_INCIDENT, DC_PROCESS_NONE, fields,
			       dc_incident_pack(incident, fields));
}

int dc_writer_process(struct dc_writer *w, uint32_t process, const struct dc_process *p)
{
	uint8_t fields[DC_FIELDS_MAX];

	return dc_writer_block(w, DC_BLOCK_PROCESS, process, fields, dc_process_pack(p, fields));
}

void dc_writer_count(struct dc_writer *w, uint64_t chunks, uint64_t events, uint64_t raw_bytes)
{
	w->totals.chunks += chunks;
	w->totals.events += events;
	w->totals.raw_bytes += raw_bytes;
}

void dc_writer_faults(struct dc_writer *w, uint64_t faults)
{
	w->totals.faults = faults;
}

int dc_writer_error(const struct dc_writer *w)
{
	return w->error;
}

uint64_t dc_writer_written(const struct dc_writer *w)
{
	return dc_output_bytes(w->output);
}

/* --- the end --- */

static int publish(struct dc_writer *w)
{
	unsigned flags = w->settled ? 0 : RENAME_NOREPLACE;

	if (renameat2(w->dir_fd, w->part, w->dir_fd, w->name, flags) == 0)
		return 0;
	if ((errno != EINVAL && errno != ENOSYS) || !flags)
		return -errno;
	/* The file system cannot refuse to replace; the name was free when we began. */
	return renameat(w->dir_fd, w->part, w->dir_fd, w->name) < 0 ? -errno : 0;
}

static int sync_fd(int fd)
{
	while (fsync(fd) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int finish(struct dc_writer *w)
{
	int r;

	w->totals.blocks = w->sequence;
	r = dc_writer_block(w, DC_BLOCK_END, DC_PROCESS_NONE, &w->totals, sizeof w->totals);
	if (r == 0)
		r = dc_output_drain(w->output);
	if (r == 0)
		r = sync_fd(w->fd);
	return r;
}

int dc_writer_close(struct dc_writer *w, bool keep)
{
	int r = 0;

	if (!w)
		return 0;
	if (keep)
		r = finish(w);
	if (keep && r == 0)
		r = publish(w);
	if (!keep || r < 0)
		unlinkat(w->dir_fd, w->part, 0);
	else
		r = sync_fd(w->dir_fd);
	writer_free(w);
	return r;
}
