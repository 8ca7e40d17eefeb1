/* SPDX-License-Identifier: MIT */
#include "persist/stacks/feed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "persist/stacks/sandbox.h"

struct packet {
	uint32_t slot;
	uint32_t bytes;
};

struct dc_feed {
	int read_fd;
	int write_fd;
	size_t slot_bytes;
	uint8_t *write; /* DC_FEED_SLOTS slots; NULL: not mapped */
	const uint8_t *read; /* the same, for the child */
	uint32_t slot; /* to be filled next */
};

static void *map(int fd, size_t bytes, int rights)
{
	void *p = mmap(NULL, bytes, rights, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* By a descriptor that was opened for reading a mapping can never become one for writing. */
static int map_both(struct dc_feed *f)
{
	CLEANUP(close_fd) int fd = memfd_create("dashcam-feed", MFD_CLOEXEC);
	CLEANUP(close_fd) int read_only = -1;
	const size_t bytes = DC_FEED_SLOTS * f->slot_bytes;
	char path[64];

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		return -errno;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	if (read_only < 0)
		return -errno;
	f->write = map(fd, bytes, PROT_READ | PROT_WRITE);
	f->read = map(read_only, bytes, PROT_READ);
	return f->write && f->read ? 0 : -ENOMEM;
}

/* O_DIRECT: every write is a packet, which takes a page of the pipe, however small. */
static int make_pipe(struct dc_feed *f)
{
	const int page = (int)sysconf(_SC_PAGESIZE);
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_DIRECT) < 0)
		return -errno;
	f->read_fd = fds[0];
	f->write_fd = fds[1];
	if (fcntl(f->write_fd, F_SETFL, O_DIRECT | O_NONBLOCK) < 0)
		return -errno;
	if (fcntl(f->write_fd, F_SETPIPE_SZ, (int)DC_FEED_WAITING * page) != (int)DC_FEED_WAITING * page)
		return -EOPNOTSUPP; /* it would hold more than there are slots */
	return 0;
}

static void close_pipe(struct dc_feed *f)
{
	if (f->write_fd >= 0)
		close(f->write_fd);
	if (f->read_fd >= 0)
		close(f->read_fd);
	f->read_fd = f->write_fd = -1;
}

int dc_feed_new(size_t slot_bytes, struct dc_feed **ret_feed)
{
	CLEANUP(dc_feed) struct dc_feed *f = calloc(1, sizeof *f);
	int r;

	if (!f)
		return -ENOMEM;
	f->read_fd = f->write_fd = -1;
	f->slot_bytes = slot_bytes;
	r = map_both(f);
	if (r == 0)
		r = make_pipe(f);
	if (r == 0)
		*ret_feed = TAKE(f);
	return r;
}

void dc_feed_free(struct dc_feed *f)
{
	if (!f)
		return;
	close_pipe(f);
	if (f->read)
		munmap((void *)(uintptr_t)f->read, DC_FEED_SLOTS * f->slot_bytes);
	if (f->write)
		munmap(f->write, DC_FEED_SLOTS * f->slot_bytes);
	free(f);
}

int dc_feed_fd(const struct dc_feed *f)
{
	return f->read_fd;
}

uint8_t *dc_feed_slot(struct dc_feed *f)
{
	return f->write + f->slot * f->slot_bytes;
}

int dc_feed_give(struct dc_feed *f, struct dc_sandboxed *child, size_t bytes)
{
	const struct packet p = {.slot = f->slot, .bytes = (uint32_t)bytes};
	int r = dc_sandbox_give(child, f->write_fd, &p, sizeof p);

	if (r == 0)
		f->slot = (f->slot + 1) % DC_FEED_SLOTS;
	return r;
}

int dc_feed_again(struct dc_feed *f, const uint8_t *slot)
{
	f->slot = (uint32_t)((size_t)(slot - f->write) / f->slot_bytes);
	close_pipe(f);
	return make_pipe(f);
}

int dc_feed_take(struct dc_feed *f, const uint8_t **ret_bytes, size_t *ret_size)
{
	struct packet p;
	ssize_t n;

	do
		n = read(f->read_fd, &p, sizeof p);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof p)
		return n < 0 ? -errno : -EIO;
	*ret_bytes = f->read + p.slot * f->slot_bytes;
	*ret_size = p.bytes;
	return p.bytes != 0;
}
