/* SPDX-License-Identifier: MIT */
#include "trigger/handover.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/control.h"

#define SENDERS_MAX 16u
#define MESSAGES_MAX 64u /* of one sender at a time: others have their turn */

struct sender {
	int fd; /* -1: free */
	uint32_t pid;
	uint64_t since; /* counts senders: the oldest makes room */
};

struct dc_handover_socket {
	int listen_fd;
	int epoll_fd;
	dc_handover_handler *handler;
	void *arg;
	uint64_t accepted;
	struct sender senders[SENDERS_MAX];
};

static void drop(struct sender *s)
{
	if (s->fd >= 0)
		close(TAKE_FD(s->fd)); /* epoll forgets it with the descriptor */
}

int dc_handover_open(const char *dir, dc_handover_handler *handler, void *arg, struct dc_handover_socket **ret_socket)
{
	struct dc_handover_socket *h = calloc(1, sizeof(*h));
	struct epoll_event listening = {.events = EPOLLIN, .data.u32 = SENDERS_MAX};
	int r;

	if (!h)
		return -ENOMEM;
	h->handler = handler;
	h->arg = arg;
	for (uint32_t i = 0; i < SENDERS_MAX; i++)
		h->senders[i].fd = -1;
	h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	h->listen_fd = r = dc_control_bind(dir, DC_HANDOVER_SOCKET, SOCK_SEQPACKET, 0600);
	if (r >= 0 && (listen(h->listen_fd, 64) < 0 || h->epoll_fd < 0 ||
		       epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->listen_fd, &listening) < 0))
		r = -errno;
	if (r < 0) {
		dc_handover_close(h);
		return r;
	}
	*ret_socket = h;
	return 0;
}

void dc_handover_close(struct dc_handover_socket *h)
{
	if (!h)
		return;
	for (uint32_t i = 0; i < SENDERS_MAX; i++)
		drop(&h->senders[i]);
	if (h->listen_fd >= 0)
		close(h->listen_fd);
	if (h->epoll_fd >= 0)
		close(h->epoll_fd);
	free(h);
}

int dc_handover_fd(const struct dc_handover_socket *h)
{
	return h->epoll_fd;
}

static uint32_t place_for(struct dc_handover_socket *h)
{
	uint32_t oldest = 0;

	for (uint32_t i = 0; i < SENDERS_MAX; i++) {
		if (h->senders[i].fd < 0)
			return i;
		if (h->senders[i].since < h->senders[oldest].since)
			oldest = i;
	}
	drop(&h->senders[oldest]); /* a guest sends all it has at once, and leaves */
	return oldest;
}

static void accept_one(struct dc_handover_socket *h)
{
	CLEANUP(close_fd) int fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct epoll_event event = {.events = EPOLLIN};
	struct ucred peer;
	socklen_t bytes = sizeof(peer);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0 || peer.pid <= 0 ||
	    (peer.uid != geteuid() && peer.uid != 0))
		return;
	event.data.u32 = place_for(h);
	if (epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
		h->senders[event.data.u32] =
			(struct sender){.fd = TAKE_FD(fd), .pid = (uint32_t)peer.pid, .since = ++h->accepted};
}

/* --- a message --- */

union control {
	struct cmsghdr align;
	uint8_t bytes[CMSG_SPACE(DC_HANDOVER_EVENTS * sizeof(int))];
};

/* All descriptors that came, whatever came with them. Return: how many. */
static uint32_t take_descriptors(struct msghdr *m, int ret_fds[static DC_HANDOVER_EVENTS])
{
	uint32_t count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		const size_t room = (DC_HANDOVER_EVENTS - count) * sizeof(int);
		const size_t bytes = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || bytes > room)
			continue;
		memcpy(ret_fds + count, CMSG_DATA(c), bytes);
		count += (uint32_t)(bytes / sizeof(int));
	}
	return count;
}

/* Without asking the file itself, which may be one that answers when it likes. */
static bool is_perf_event(int fd)
{
	static const char what[] = "anon_inode:[perf_event]";
	char path[32], link[sizeof(what)];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link));
	return n == (ssize_t)sizeof(what) - 1 && memcmp(link, what, sizeof(what) - 1) == 0;
}

static bool kind_known(uint8_t kind, uint8_t shift)
{
	if (kind != DC_PERF_OFF)
		return (kind == DC_PERF_CPU || kind == DC_PERF_SWITCHES) && shift == 0;
	for (uint32_t step = 0; step < DC_HANDOVER_STEPS; step++)
		if (dc_handover_shift(step) == shift)
			return true;
	return false;
}

static int check(const struct dc_handover *m, const struct sender *s, struct dc_handed *h)
{
	if (m->version != DC_HANDOVER_VERSION || m->count == 0 || m->count != h->count || m->cpu >= DC_HANDOVER_CPUS_MAX)
		return -EPROTO;
	if (m->pid != s->pid) /* of another pid namespace: what its events say of pids is not what we know them by */
		return -EREMOTE;
	for (uint32_t i = 0; i < h->count; i++) {
		if (!kind_known(m->event[i].kind, m->event[i].shift) || !is_perf_event(h->event[i].fd))
			return -EPROTO;
		h->event[i].kind = m->event[i].kind;
		h->event[i].shift = m->event[i].shift;
	}
	h->pid = s->pid;
	h->first = m->first != 0;
	h->cpu = m->cpu;
	return 0;
}

/* Return: 0, -EAGAIN: nothing waits; < 0: no more from this one. */
static int receive(struct dc_handover_socket *h, const struct sender *s)
{
	union control control;
	struct dc_handover message;
	struct iovec bytes = {.iov_base = &message, .iov_len = sizeof(message)};
	struct msghdr m = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	const ssize_t n = recvmsg(s->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int fds[DC_HANDOVER_EVENTS], r;
	struct dc_handed handed = {0};

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	handed.count = take_descriptors(&m, fds);
	for (uint32_t i = 0; i < handed.count; i++)
		handed.event[i].fd = fds[i];
	r = n == 0 ? -ECONNRESET : n != sizeof(message) || m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -EPROTO : 0;
	if (r == 0)
		r = check(&message, s, &handed);
	if (r == 0)
		r = h->handler(h->arg, &handed);
	for (uint32_t i = 0; i < handed.count; i++)
		if (handed.event[i].fd >= 0)
			close(handed.event[i].fd);
	return r;
}

static void serve(struct dc_handover_socket *h, struct sender *s)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < MESSAGES_MAX; i++)
		r = receive(h, s);
	if (r < 0 && r != -EAGAIN)
		drop(s);
}

void dc_handover_dispatch(struct dc_handover_socket *h)
{
	struct epoll_event events[SENDERS_MAX];
	int n = epoll_wait(h->epoll_fd, events, SENDERS_MAX, 0);

	for (int i = 0; i < n; i++) {
		if (events[i].data.u32 == SENDERS_MAX)
			accept_one(h);
		else if (h->senders[events[i].data.u32].fd >= 0)
			serve(h, &h->senders[events[i].data.u32]);
	}
}

bool dc_handover_wanted(void)
{
	const uint64_t enough = UINT64_C(1) << CAP_SYS_ADMIN | UINT64_C(1) << CAP_SYS_PTRACE | UINT64_C(1) << 38 /* CAP_PERFMON */;
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	return !(enough & ((uint64_t)data[1].effective << 32 | data[0].effective));
}
