/* SPDX-License-Identifier: MIT */
/*
 * Opening a capture: walk the blocks from header to header, remember where each is, and read the small ones.
 *
 * A header that does not check is damage: the next one is looked for at every multiple of 64, since headers
 * say of themselves that they are whole. A jump in the sequence numbers says how many blocks were lost in
 * between, a missing END block that the file was cut. Payloads are checked when they are read: those of
 * chunks not before somebody asks for events, those of samples and stacks when somebody asks for them
 * (stacks/stacks.h), so opening a large capture is quick.
 */
#include "ipc/grow.h"
#include "persist/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/capture_inside.h"

#define SCAN_BYTES (64u << 10)

DC_DEFINE_CLEANUP(dc_capture, struct dc_capture *, dc_capture_close)

/* Faults. */

static bool fault_known(const struct dc_capture *c, const struct dc_fault *fault)
{
	for (unsigned i = 0; i < c->fault_count; i++)
		if (c->faults[i].offset == fault->offset && strcmp(c->faults[i].text, fault->text) == 0)
			return true;
	return false;
}

static void fault_append(struct dc_capture *c, const struct dc_fault *fault)
{
	if (fault_known(c, fault))
		return;
	if (c->fault_count == DC_CAPTURE_FAULT_MAX) { /* the last one tells how many there are */
		struct dc_fault *last = &c->faults[DC_CAPTURE_FAULT_MAX - 1];
		snprintf(last->text, sizeof last->text, "%u further faults, the first at %" PRIu64,
			 ++c->faults_more, last->offset);
		return;
	}
	struct dc_fault *more = realloc(c->faults, (c->fault_count + 1) * sizeof *more);
	if (!more)
		return;
	c->faults = more;
	c->faults[c->fault_count++] = *fault;
}

void dc_capture_fault(struct dc_capture *c, uint64_t offset, const char *format, ...)
{
	struct dc_fault fault = {.offset = offset};
	va_list args;

	va_start(args, format);
	vsnprintf(fault.text, sizeof fault.text, format, args);
	va_end(args);
	fault_append(c, &fault);
}

static const char *type_name(uint16_t type)
{
	static const char *const names[] = {"?",     "file",   "incident", "process", "tables",
					    "chunks", "columns", "loss",    "index",   "end",
					    "maps",  "samples", "stacks",  "frames",  "names"};
	return type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

const char *dc_block_name(const struct dc_block_ref *b, char text[static DC_BLOCK_NAME_BYTES])
{
	snprintf(text, DC_BLOCK_NAME_BYTES, "block %" PRIu32 " (%s) at %" PRIu64, b->sequence,
		 type_name(b->type), b->offset);
	return text;
}

/* Reading. */

int dc_capture_pread(const struct dc_capture *c, void *to, size_t bytes, uint64_t offset)
{
	uint8_t *at = to;

	while (bytes) {
		ssize_t n = pread(c->fd, at, bytes, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		at += n;
		bytes -= (size_t)n;
		offset += (size_t)n;
	}
	return 0;
}

static int reserve(uint8_t **buffer, size_t *room, size_t bytes)
{
	if (bytes <= *room)
		return 0;
	uint8_t *more = malloc(bytes);
	if (!more)
		return -ENOMEM;
	free(*buffer);
	*buffer = more;
	*room = bytes;
	return 0;
}

static bool all_zero(const uint8_t *p, size_t bytes)
{
	return bytes == 0 || (p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0);
}

/* The payload and its padding, checked. */
static int read_checked(struct dc_capture *c, const struct dc_block_ref *b, uint8_t *to)
{
	char name[DC_BLOCK_NAME_BYTES];
	size_t bytes = (size_t)b->stored_bytes + b->pad_bytes;
	int r = dc_capture_pread(c, to, bytes, b->offset + sizeof(struct dc_block_header));

	if (r == -ENODATA) {
		dc_capture_fault(c, b->offset, "%s: the file became shorter while it was read",
				 dc_block_name(b, name));
		return -EBADMSG;
	}
	if (r < 0)
		return r;
	struct dc_block_header h = {.stored_bytes = b->stored_bytes, .payload_xxh3 = b->payload_xxh3};
	if (!dc_block_intact(&h, to)) {
		dc_capture_fault(c, b->offset, "%s: checksum does not match, its %" PRIu32 " bytes are lost",
				 dc_block_name(b, name), b->stored_bytes);
		return -EBADMSG;
	}
	if (!all_zero(to + b->stored_bytes, b->pad_bytes))
		dc_capture_fault(c, b->offset, "%s: the bytes behind it are not zero; nothing is lost",
				 dc_block_name(b, name));
	return 0;
}

static int read_stored(struct dc_capture *c, const struct dc_block_ref *b)
{
	int r = reserve(&c->stored, &c->stored_room, (size_t)b->stored_bytes + b->pad_bytes + 1);

	return r < 0 ? r : read_checked(c, b, c->stored);
}

int dc_capture_check(struct dc_capture *c, const struct dc_block_ref *b)
{
	int r = read_stored(c, b);
	return r == -EBADMSG ? 0 : r;
}

int dc_capture_stored(struct dc_capture *c, const struct dc_block_ref *b, const uint8_t **ret_stored)
{
	int r = read_stored(c, b);

	*ret_stored = c->stored;
	return r;
}

/* Of a compressed block that has been read: the first @room bytes, or all of them when there are no more. */
static int decompress(struct dc_capture *c, const struct dc_block_ref *b, size_t room, size_t *ret_bytes)
{
	int r = reserve(&c->plain, &c->plain_room, (size_t)b->plain_bytes + 1);

	if (r == 0 && !c->decompressor)
		r = dc_decompressor_new(&c->decompressor);
	if (r < 0)
		return r;
	if (room < b->plain_bytes)
		return dc_decompress_prefix(c->decompressor, c->stored, b->stored_bytes, c->plain, room,
					    ret_bytes);
	*ret_bytes = b->plain_bytes;
	return dc_decompress(c->decompressor, c->stored, b->stored_bytes, c->plain, b->plain_bytes);
}

int dc_capture_prefix(struct dc_capture *c, const struct dc_block_ref *b, size_t room,
		      const uint8_t **ret_payload, size_t *ret_bytes)
{
	char name[DC_BLOCK_NAME_BYTES];
	int r = read_stored(c, b);

	if (r < 0)
		return r;
	*ret_bytes = b->plain_bytes;
	*ret_payload = c->stored;
	if (!(b->flags & DC_BLOCK_ZSTD))
		return 0;
	r = decompress(c, b, room, ret_bytes);
	if (r == -EBADMSG)
		dc_capture_fault(c, b->offset, "%s: does not decompress, it is lost", dc_block_name(b, name));
	*ret_payload = c->plain;
	return r;
}

int dc_capture_payload(struct dc_capture *c, const struct dc_block_ref *b, const uint8_t **ret_payload)
{
	size_t bytes;
	return dc_capture_prefix(c, b, b->plain_bytes, ret_payload, &bytes);
}

int dc_capture_payload_into(struct dc_capture *c, const struct dc_block_ref *b, uint8_t *to)
{
	const uint8_t *payload;
	int r;

	if (!(b->flags & DC_BLOCK_ZSTD))
		return read_checked(c, b, to);
	r = dc_capture_payload(c, b, &payload);
	if (r == 0)
		memcpy(to, payload, b->plain_bytes);
	return r;
}

/* Walking the blocks. */

/* Where the walk stands. */
struct walk {
	uint64_t at;
	uint64_t damaged_from; /* first byte of a damaged run; ~0: none */
	uint32_t sequence;     /* expected next */
};

static int block_append(struct dc_capture *c, const struct dc_block_header *h, uint64_t at)
{
	if (GROW(c->blocks, c->block_count, c->block_room, 64) < 0)
		return -ENOMEM;
	uint64_t behind = at + sizeof *h + h->stored_bytes, next = at + h->next;
	uint64_t end = next < c->bytes ? next : c->bytes;
	uint64_t pad = end > behind ? end - behind : 0;
	c->blocks[c->block_count++] = (struct dc_block_ref){.offset = at,
							    .payload_xxh3 = h->payload_xxh3,
							    .stored_bytes = (uint32_t)h->stored_bytes,
							    .plain_bytes = (uint32_t)h->plain_bytes,
							    .pad_bytes = pad < DC_RAW_ALIGN ? (uint32_t)pad
											    : 0,
							    .process = h->process,
							    .sequence = h->sequence,
							    .type = h->type,
							    .flags = h->flags};
	return 0;
}

static void damage_ends(struct dc_capture *c, struct walk *w, uint64_t at)
{
	if (w->damaged_from == UINT64_MAX)
		return;
	dc_capture_fault(c, w->damaged_from,
			 "bytes %" PRIu64 " to %" PRIu64 ": no block header where one should be",
			 w->damaged_from, at);
	w->damaged_from = UINT64_MAX;
}

static void sequence_check(struct dc_capture *c, struct walk *w, const struct dc_block_header *h)
{
	if (h->sequence > w->sequence)
		dc_capture_fault(c, w->at,
				 "blocks %" PRIu32 " to %" PRIu32 " are missing before offset %" PRIu64,
				 w->sequence, h->sequence - 1, w->at);
	else if (h->sequence < w->sequence)
		dc_capture_fault(c, w->at,
				 "block %" PRIu32 " at %" PRIu64 " is out of order: block %" PRIu32
				 " was expected",
				 h->sequence, w->at, w->sequence);
	w->sequence = h->sequence + 1;
}

/* A header that checks, whatever may be the matter with its payload. */
static int block_found(struct dc_capture *c, struct walk *w, const struct dc_block_header *h, int fault)
{
	struct dc_block_ref b = {.offset = w->at, .sequence = h->sequence, .type = h->type};
	char name[DC_BLOCK_NAME_BYTES];
	int r = 0;

	damage_ends(c, w, w->at);
	sequence_check(c, w, h);
	if (fault == -ENODATA)
		dc_capture_fault(c, w->at,
				 "%s: the file ends inside it, %" PRIu64 " of %" PRIu64 " bytes are there",
				 dc_block_name(&b, name), c->bytes - w->at - sizeof *h, h->stored_bytes);
	else if (fault == -E2BIG)
		dc_capture_fault(c, w->at, "%s: is larger than a block may be, skipped",
				 dc_block_name(&b, name));
	else if (fault == -EPROTONOSUPPORT)
		dc_capture_fault(c, w->at, "%s: is stored in a way this version does not know, skipped",
				 dc_block_name(&b, name));
	else
		r = block_append(c, h, w->at);
	w->at = h->next < c->bytes - w->at ? w->at + h->next : c->bytes;
	return r;
}

/* Moves to the next offset that may hold a header: where the magic is. */
static int skip_to_magic(struct dc_capture *c, struct walk *w, uint8_t *buffer)
{
	while (w->at < c->bytes) {
		uint64_t left = c->bytes - w->at;
		size_t bytes = left < SCAN_BYTES ? (size_t)left : SCAN_BYTES;
		int r = dc_capture_pread(c, buffer, bytes, w->at);
		if (r < 0)
			return r;
		for (size_t i = 0; i < bytes; i += DC_BLOCK_ALIGN) {
			uint32_t magic = 0;
			memcpy(&magic, buffer + i, bytes - i < sizeof magic ? bytes - i : sizeof magic);
			if (magic == DC_BLOCK_MAGIC) {
				w->at += i;
				return 0;
			}
		}
		w->at += SCAN_BYTES;
	}
	w->at = c->bytes;
	return 0;
}

static int header_at(const struct dc_capture *c, uint64_t at, struct dc_block_header *ret_h)
{
	if (c->bytes - at < sizeof *ret_h)
		return -EBADMSG;
	int r = dc_capture_pread(c, ret_h, sizeof *ret_h, at);
	return r < 0 ? r : dc_block_check(ret_h, c->bytes - at);
}

static int walk_blocks(struct dc_capture *c)
{
	CLEANUP(free) uint8_t *buffer = malloc(SCAN_BYTES);
	struct walk w = {.damaged_from = UINT64_MAX};
	int r = buffer ? 0 : -ENOMEM;

	while (r == 0 && w.at < c->bytes) {
		struct dc_block_header h;
		if (c->block_count == DC_CAPTURE_BLOCK_MAX) {
			dc_capture_fault(c, w.at, "more than %u blocks: the rest of the file is not read",
					 DC_CAPTURE_BLOCK_MAX);
			return 0;
		}
		r = header_at(c, w.at, &h);
		if (r == 0 || r == -ENODATA || r == -E2BIG || r == -EPROTONOSUPPORT) {
			r = block_found(c, &w, &h, r);
		} else if (r == -EBADMSG) {
			if (w.damaged_from == UINT64_MAX)
				w.damaged_from = w.at;
			w.at += DC_BLOCK_ALIGN;
			r = skip_to_magic(c, &w, buffer);
		}
	}
	damage_ends(c, &w, c->bytes);
	return r == -ENODATA ? 0 : r; /* it became shorter meanwhile: what was found is there */
}

/* What the blocks say. */

static int take_file_block(struct dc_capture *c, const struct dc_block_ref *b, char *ret_why)
{
	const uint8_t *payload;
	struct dc_file_block file = {0};
	int r = dc_capture_payload(c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	memcpy(&file, payload, b->plain_bytes < sizeof file ? b->plain_bytes : sizeof file);
	if (file.incompat & ~DC_FORMAT_INCOMPAT_KNOWN) {
		snprintf(ret_why, 160,
			 "capture of format %" PRIu32
			 " uses features this version does not know: read it with a newer "
			 "dashcam",
			 file.version);
		return -EPROTONOSUPPORT;
	}
	c->has_file_block = true;
	c->settled = file.settled != 0;
	return 0;
}

static int take_end_block(struct dc_capture *c, const struct dc_block_ref *b)
{
	const uint8_t *payload;
	struct dc_end_block end = {0};

	int r = dc_capture_payload(c, b, &payload);
	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	memcpy(&end, payload, b->plain_bytes < sizeof end ? b->plain_bytes : sizeof end);
	c->complete = true;
	if (end.faults)
		dc_capture_fault(c, b->offset,
				 "settled from a damaged capture: %" PRIu64
				 " fault%s, what was hit is not here",
				 end.faults, end.faults == 1 ? "" : "s");
	if (end.blocks != b->sequence)
		dc_capture_fault(c, b->offset,
				 "the end block counts %" PRIu64 " blocks, but it is number %" PRIu32,
				 end.blocks, b->sequence);
	return 0;
}

/* The index, which this reader does without, and what newer versions write. */
static bool read_by_nobody(const struct dc_block_ref *b)
{
	return b->type == DC_BLOCK_INDEX || b->type > DC_BLOCK_NAMES || b->type == 0;
}

static int take_blocks(struct dc_capture *c, char *ret_why)
{
	int r = 0;

	for (uint32_t i = 0; i < c->block_count && r == 0; i++) {
		const struct dc_block_ref *b = &c->blocks[i];
		if (b->type == DC_BLOCK_FILE && !c->has_file_block)
			r = take_file_block(c, b, ret_why);
		else if (b->type == DC_BLOCK_END && i == c->block_count - 1)
			r = take_end_block(c, b);
		else if (b->type == DC_BLOCK_COLUMNS)
			c->settled = true;
		else if (read_by_nobody(b))
			r = dc_capture_check(c, b);
	}
	if (r == 0 && !c->complete)
		dc_capture_fault(c, c->bytes, "no end block: the file was cut, or never finished");
	return r;
}

static int refuse(char *ret_why, int error, const char *why)
{
	snprintf(ret_why, 160, "%s", why);
	return error;
}

static int open_file(struct dc_capture *c, const char *path, char *ret_why)
{
	struct stat st;

	c->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (c->fd < 0 || fstat(c->fd, &st) < 0)
		return refuse(ret_why, -errno, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return refuse(ret_why, -ENODATA, "not a regular file");
	c->bytes = (uint64_t)st.st_size;
	if (c->bytes == 0)
		return refuse(ret_why, -ENODATA, "the file is empty");
	return 0;
}

static int capture_read(struct dc_capture *c, const char *path, char *ret_why)
{
	int r = open_file(c, path, ret_why);
	if (r < 0)
		return r;
	r = walk_blocks(c);
	if (r == 0 && c->block_count == 0)
		return refuse(ret_why, -ENODATA, "not a capture: no whole block in it");
	if (r == 0)
		r = take_blocks(c, ret_why);
	if (r == 0)
		r = dc_capture_read_tables(c);
	if (r < 0 && r != -EPROTONOSUPPORT)
		refuse(ret_why, r, strerror(-r));
	return r;
}

int dc_capture_open(const char *path, struct dc_capture **ret_capture, char ret_why[static 160])
{
	CLEANUP(dc_capture) struct dc_capture *c = calloc(1, sizeof *c);

	if (!c)
		return refuse(ret_why, -ENOMEM, strerror(ENOMEM));
	c->fd = -1;
	for (unsigned i = 0; i < DC_CAPTURE_CACHE_SLOTS; i++)
		c->cache[i].block = UINT32_MAX;
	int r = capture_read(c, path, ret_why);
	if (r == 0)
		*ret_capture = TAKE(c);
	return r;
}

void dc_capture_close(struct dc_capture *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < DC_CAPTURE_CACHE_SLOTS; i++)
		free(c->cache[i].payload);
	for (unsigned i = 0; i < c->process_count; i++)
		dc_capture_process_fini(&c->processes[i]);
	dc_decompressor_free(c->decompressor);
	free(c->plain);
	free(c->stored);
	free(c->lanes);
	free(c->chunks);
	free(c->processes);
	free(c->blocks);
	free(c->faults);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

/* What is known. */

bool dc_capture_settled(const struct dc_capture *c)
{
	return c->settled;
}

bool dc_capture_complete(const struct dc_capture *c)
{
	return c->complete;
}

uint64_t dc_capture_bytes(const struct dc_capture *c)
{
	return c->bytes;
}

const struct dc_incident *dc_capture_incident(const struct dc_capture *c)
{
	return &c->incident;
}

unsigned dc_capture_faults(const struct dc_capture *c, const struct dc_fault **ret_faults)
{
	*ret_faults = c->faults;
	return c->fault_count;
}

const struct dc_clock *dc_capture_clock(const struct dc_capture *c)
{
	return &c->clock;
}
