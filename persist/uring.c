/* SPDX-License-Identifier: MIT */
#include "persist/uring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

struct dc_uring {
	struct io_uring ring;
	int fd;
	unsigned count;
	bool registered;
	const struct iovec *buffers;
};

void dc_uring_free(struct dc_uring *u)
{
	if (!u)
		return;
	io_uring_queue_exit(&u->ring);
	free(u);
}

int dc_uring_new(int fd, const struct iovec *buffers, unsigned count, struct dc_uring **ret_uring)
{
	struct dc_uring *u = calloc(1, sizeof *u);
	int r;

	if (!u)
		return -ENOMEM;
	u->fd = fd;
	u->count = count;
	u->buffers = buffers;
	r = io_uring_queue_init(count, &u->ring, 0);
	if (r < 0) {
		free(u);
		return r;
	}
	u->registered = io_uring_register_buffers(&u->ring, buffers, count) == 0;
	*ret_uring = u;
	return 0;
}

bool dc_uring_registered(const struct dc_uring *u)
{
	return u->registered;
}

int dc_uring_write(struct dc_uring *u, unsigned index, size_t bytes, uint64_t offset)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	int r;

	if (!sqe)
		return -EBUSY;
	if (u->registered && index < u->count)
		io_uring_prep_write_fixed(sqe, u->fd, u->buffers[index].iov_base, (unsigned)bytes, offset,
					  (int)index);
	else
		io_uring_prep_write(sqe, u->fd, u->buffers[index].iov_base, (unsigned)bytes, offset);
	io_uring_sqe_set_data64(sqe, index);
	/* A refused entry stays queued and goes with the next submit, so try again rather than prepare it twice. */
	do
		r = io_uring_submit(&u->ring);
	while (r == -EINTR);
	return r < 0 ? r : 0;
}

bool dc_uring_ready(struct dc_uring *u)
{
	struct io_uring_cqe *cqe;

	return io_uring_peek_cqe(&u->ring, &cqe) == 0;
}

int dc_uring_wait(struct dc_uring *u, unsigned *ret_index, int *ret_result)
{
	struct io_uring_cqe *cqe;
	int r;

	do
		r = io_uring_wait_cqe(&u->ring, &cqe);
	while (r == -EINTR);
	if (r < 0)
		return r;
	*ret_index = (unsigned)io_uring_cqe_get_data64(cqe);
	*ret_result = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	return 0;
}
