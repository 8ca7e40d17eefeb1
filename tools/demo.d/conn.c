/* SPDX-License-Identifier: MIT */
#include "tools/demo.d/conn.h"

#include <dashcam.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_MAX (HTTP_RESPONSE_HEAD_MAX + TABLE_VALUE_MAX)

struct conn {
	int fd;
	bool over; /* no further requests; what is in out[] still goes */
	size_t in_used;
	size_t out_from;
	size_t out_used;
	char in[HTTP_REQUEST_MAX];
	char out[2 * ANSWER_MAX];
};

struct conn *conn_new(int fd)
{
	struct conn *c = malloc(sizeof(*c));
	if (!c)
		return NULL;
	c->fd = fd;
	c->over = false;
	c->in_used = c->out_from = c->out_used = 0;
	return c;
}

void conn_free(struct conn *c)
{
	if (!c)
		return;
	close(c->fd);
	free(c);
}

int conn_fd(const struct conn *c)
{
	return c->fd;
}

/* Return: 1 something came, 0 nothing yet, -errno, -EPIPE at the end of the stream. */
static int fill(struct conn *c)
{
	if (c->in_used == sizeof(c->in))
		return 0;

	dc_span_t span = DC_BEGIN("io.read", "fd", c->fd);
	ssize_t n = recv(c->fd, c->in + c->in_used, sizeof(c->in) - c->in_used, 0);
	int error = errno;
	DC_END(span);
	if (n > 0) {
		c->in_used += (size_t)n;
		return 1;
	}
	return n == 0 ? -EPIPE : error == EAGAIN || error == EINTR ? 0 : -error;
}

/* Return: 0 all went or the socket is full, -errno. */
static int drain(struct conn *c)
{
	if (c->out_from == c->out_used)
		return 0;

	DC_SPAN("io.write", "fd", c->fd, "bytes", c->out_used - c->out_from);
	ssize_t n = send(c->fd, c->out + c->out_from, c->out_used - c->out_from, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	c->out_from += (size_t)n;
	if (c->out_from == c->out_used)
		c->out_from = c->out_used = 0;
	return 0;
}

static bool has_room(struct conn *c)
{
	if (sizeof(c->out) - c->out_used >= ANSWER_MAX)
		return true;
	memmove(c->out, c->out + c->out_from, c->out_used - c->out_from);
	c->out_used -= c->out_from;
	c->out_from = 0;
	return sizeof(c->out) - c->out_used >= ANSWER_MAX;
}

static void answer(struct conn *c, int status, const char *body, size_t length, bool keep_alive)
{
	c->out_used += http_head(c->out + c->out_used, status, length, keep_alive);
	memcpy(c->out + c->out_used, body, length);
	c->out_used += length;
	c->over = c->over || !keep_alive;
}

static void serve(struct conn *c, const struct service *s, const struct http_request *r)
{
	char method[8] = "", path[64] = "", body[TABLE_VALUE_MAX];
	memcpy(method, r->method.at, r->method.length < 7 ? r->method.length : 7);
	memcpy(path, r->path.at, r->path.length < 63 ? r->path.length : 63);

	DC_SPAN("http.request", "method", method, "path", path, "fd", c->fd);
	size_t length;
	int status = service_answer(s, r, body, &length);
	answer(c, status, body, length, r->keep_alive);
}

/* Every whole request there is room to answer. Return: whether it took any. No room means that output is pending. */
static bool take_requests(struct conn *c, const struct service *s)
{
	size_t from = 0;

	while (!c->over && has_room(c)) {
		struct http_request r;
		ssize_t n = http_parse(c->in + from, c->in_used - from, &r);
		if (n == 0)
			break;
		if (n < 0) {
			answer(c, n == -EMSGSIZE ? 413 : n == -ENOSYS ? 501 : 400, "", 0, false);
			break;
		}
		serve(c, s, &r);
		from += (size_t)n;
	}
	memmove(c->in, c->in + from, c->in_used - from);
	c->in_used -= from;
	return from > 0;
}

static bool pending(const struct conn *c)
{
	return c->out_from < c->out_used;
}

static uint32_t events_wanted(const struct conn *c, bool at_end)
{
	if (c->over || at_end)
		return pending(c) ? EPOLLOUT : 0;
	return (pending(c) ? EPOLLOUT : 0) | (c->in_used < sizeof(c->in) ? EPOLLIN : 0);
}

uint32_t conn_run(struct conn *c, const struct service *s)
{
	int r = fill(c);
	bool at_end = r == -EPIPE; /* requests sent before the client closed its side are still answered */
	if ((r < 0 && !at_end) || drain(c) < 0)
		return 0;

	while (take_requests(c, s)) {
		if (drain(c) < 0)
			return 0;
	}
	/* A refused request leaves an answer, too. */
	return drain(c) < 0 ? 0 : events_wanted(c, at_end);
}
