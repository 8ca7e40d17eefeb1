/* SPDX-License-Identifier: MIT */
#include "trigger/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ipc/cleanup.h"

#define CLIENTS_MAX 32u
#define SOCKET_MODE 0666 /* anybody may ask; what they may have is decided by who they are */

struct client {
	int fd;          /* -1: free */
	uint32_t serial; /* which use of this slot: a reply to somebody who left must not reach the next */
	struct ucred peer;
};

struct dc_control {
	int listen_fd;
	int epoll_fd;
	dc_control_handler *handler;
	void *arg;
	char path[DC_RINGS_PATH_BYTES + 32];
	struct client clients[CLIENTS_MAX];
};

static int address_of(const char *dir, const char *name, struct sockaddr_un *ret_address)
{
	*ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	return snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%s/%s", dir, name) <
			       (int)sizeof(ret_address->sun_path)
		       ? 0
		       : -ENAMETOOLONG;
}

int dc_control_bind(const char *dir, const char *name, int type, mode_t mode)
{
	CLEANUP(close_fd) int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;
	mode_t before;
	int r = address_of(dir, name, &address);

	if (fd < 0)
		return -errno;
	if (r < 0)
		return r;
	if (unlink(address.sun_path) < 0 && errno != ENOENT)
		return -errno;
	/* The mode goes with bind(), not after it by path: in a shared directory the path may be another's by then. */
	before = umask((mode_t)~mode & 0777);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(before);
	return r < 0 ? r : TAKE_FD(fd);
}

/* --- clients --- */

static bool believed(int fd)
{
	struct ucred peer;
	socklen_t bytes = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

static int refused(int r, const char *dir, char why[static DC_WHY_BYTES])
{
	if (r == -ENOENT || r == -ECONNREFUSED)
		snprintf(why, DC_WHY_BYTES, "no watcher in '%.80s': start one with 'dashcam watch'", dir);
	else if (r == -EPERM)
		snprintf(why, DC_WHY_BYTES,
			 "the watcher in '%.80s' is neither root nor you: not talking to it", dir);
	else if (r == -ETIMEDOUT)
		snprintf(why, DC_WHY_BYTES, "the watcher in '%.80s' does not answer: is it stopped? SIGCONT lets it go on", dir);
	else
		snprintf(why, DC_WHY_BYTES, "the watcher in '%.80s': %s", dir, strerror(-r));
	return r;
}

/* Strings of a reply end where their arrays end, whatever the sender wrote. */
static int receive(int fd, struct dc_control_reply *reply)
{
	ssize_t n;

	do
		n = recv(fd, reply, sizeof(*reply), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (n == 0)
		return -ECONNRESET;
	if (n != sizeof(*reply) || reply->version != DC_CONTROL_VERSION)
		return -EPROTO;
	reply->path[sizeof(reply->path) - 1] = '\0';
	reply->text[sizeof(reply->text) - 1] = '\0';
	reply->status.out[sizeof(reply->status.out) - 1] = '\0';
	return 0;
}

int64_t dc_control_patience_ns = INT64_C(5000000000);

/* A watcher that is stopped takes connections, as many as may queue, and answers none. */
static int connect_to(const char *dir, bool patient, int *ret_fd)
{
	const struct timeval limit = {dc_control_patience_ns / 1000000000, dc_control_patience_ns % 1000000000 / 1000};
	CLEANUP(close_fd) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	int r = address_of(dir, DC_RINGS_SOCKET, &address);

	if (fd < 0)
		return -errno;
	if (r < 0)
		return r;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
	    (!patient && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0))
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (!believed(fd))
		return -EPERM;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void ignore(void *arg, const struct dc_control_reply *reply)
{
	(void)arg;
	(void)reply;
}

int dc_control_ask(const char *dir, const struct dc_control_request *request,
		   void (*each)(void *arg, const struct dc_control_reply *reply), void *arg,
		   char ret_why[static DC_WHY_BYTES])
{
	const struct dc_control_request anything = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_STATUS};
	const bool patient = request->flags & DC_CONTROL_WAIT; /* a capture may take any time, its watcher not */
	CLEANUP(close_fd) int fd = -1;
	struct dc_control_reply reply = {.more = 1};
	int count = 0, r = patient ? dc_control_ask(dir, &anything, ignore, NULL, ret_why) : 0;

	if (r < 0)
		return r;
	r = connect_to(dir, patient, &fd);

	if (r == 0 && send(fd, request, sizeof(*request), MSG_NOSIGNAL) != sizeof(*request))
		r = -errno;
	while (r == 0 && reply.more) {
		r = receive(fd, &reply);
		if (r == 0) {
			each(arg, &reply);
			count++;
		}
	}
	return r < 0 ? refused(r, dir, ret_why) : count;
}

/* --- the watcher's end --- */

int dc_control_new(const char *dir, dc_control_handler *handler, void *arg, struct dc_control **ret_control)
{
	struct dc_control *c = calloc(1, sizeof(*c));
	struct epoll_event listening = {.events = EPOLLIN, .data.u32 = CLIENTS_MAX};
	int r;

	if (!c)
		return -ENOMEM;
	c->handler = handler;
	c->arg = arg;
	for (uint32_t i = 0; i < CLIENTS_MAX; i++)
		c->clients[i].fd = -1;
	snprintf(c->path, sizeof(c->path), "%s/%s", dir, DC_RINGS_SOCKET);
	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->listen_fd = r = dc_control_bind(dir, DC_RINGS_SOCKET, SOCK_SEQPACKET, SOCKET_MODE);
	if (r >= 0 && (listen(c->listen_fd, 16) < 0 || c->epoll_fd < 0 ||
		       epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->listen_fd, &listening) < 0))
		r = -errno;
	if (r < 0) {
		dc_control_free(c);
		return r;
	}
	*ret_control = c;
	return 0;
}

static void forget(struct client *client)
{
	if (client->fd >= 0)
		close(client->fd); /* epoll forgets it with the descriptor */
	client->fd = -1;
	client->serial++;
}

void dc_control_leave(struct dc_control *c)
{
	c->path[0] = '\0';
}

void dc_control_free(struct dc_control *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < CLIENTS_MAX; i++)
		forget(&c->clients[i]);
	if (c->listen_fd >= 0) {
		if (c->path[0])
			unlink(c->path);
		close(c->listen_fd);
	}
	if (c->epoll_fd >= 0)
		close(c->epoll_fd);
	free(c);
}

int dc_control_fd(const struct dc_control *c)
{
	return c->epoll_fd;
}

static uint32_t free_client(const struct dc_control *c)
{
	uint32_t i = 0;

	while (i < CLIENTS_MAX && c->clients[i].fd >= 0)
		i++;
	return i;
}

static void accept_one(struct dc_control *c)
{
	CLEANUP(close_fd) int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	const uint32_t i = free_client(c);
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
	socklen_t bytes = sizeof(struct ucred);

	if (fd < 0 || i == CLIENTS_MAX)
		return; /* one too many: it sees the connection closed and says so */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->clients[i].peer, &bytes) < 0 ||
	    epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return;
	c->clients[i].fd = TAKE_FD(fd);
}

static uint64_t name_of(const struct dc_control *c, uint32_t index)
{
	return (uint64_t)c->clients[index].serial << 32 | index;
}

static void refuse(struct dc_control *c, uint64_t client, int error, const char *text)
{
	struct dc_control_reply reply = {.error = error};

	snprintf(reply.text, sizeof(reply.text), "%s", text);
	dc_control_reply(c, client, &reply);
}

static void serve(struct dc_control *c, uint32_t index)
{
	struct client *client = &c->clients[index];
	struct dc_control_request request;
	ssize_t n = recv(client->fd, &request, sizeof(request), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		forget(client);
		return;
	}
	if (n < (ssize_t)sizeof(request.version) || request.version != DC_CONTROL_VERSION) {
		refuse(c, name_of(c, index), -EPROTONOSUPPORT,
		       "this watcher speaks version 1 of the control protocol");
	} else if (n != sizeof(request)) {
		refuse(c, name_of(c, index), -EPROTO, "the request has an unexpected size");
	} else {
		request.name[sizeof(request.name) - 1] = '\0';
		request.reason[sizeof(request.reason) - 1] = '\0';
		c->handler(c->arg, name_of(c, index), &client->peer, &request);
	}
}

void dc_control_dispatch(struct dc_control *c)
{
	struct epoll_event events[16];
	int n = epoll_wait(c->epoll_fd, events, 16, 0);

	for (int i = 0; i < n; i++) {
		if (events[i].data.u32 == CLIENTS_MAX)
			accept_one(c);
		else if (c->clients[events[i].data.u32].fd >= 0)
			serve(c, events[i].data.u32);
	}
}

void dc_control_reply(struct dc_control *c, uint64_t name, const struct dc_control_reply *reply)
{
	struct dc_control_reply out = *reply;
	struct client *client = &c->clients[(uint32_t)name % CLIENTS_MAX];

	if (client->fd < 0 || name_of(c, (uint32_t)name % CLIENTS_MAX) != name)
		return;
	out.version = DC_CONTROL_VERSION;
	if (send(client->fd, &out, sizeof(out), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 || out.more == 0)
		forget(client);
}
