/* SPDX-License-Identifier: MIT */
/*
 * A process that nobody else of its user may look into opens its own perf events when recording starts, and hands them to the
 * watcher of its directory (ipc/handover.h): only if it is not dumpable, only if that watcher is there and wishes for it, and
 * only if it is closed in by no more seccomp filters than that one. All others pay for one prctl().
 *
 * Nothing waits, and whatever fails ends it: what is not handed over is sampled by timers, if at all (sample.c). The events
 * are disabled until the watcher has taken them; those that it does not take are gone with their last descriptor.
 *
 * System calls: prctl; where it is not dumpable openat, read, close, socket, connect, getsockopt, getdents64, perf_event_open, sendmsg.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "ipc/handover.h"
#include "recorder/recorder.h"
#include "recorder/text.h"

struct wish {
	uint32_t hz, copy_bytes, kernel, cpus;
};

struct handing {
	struct wish wish;
	int to; /* the watcher */
	uint32_t pid;
	bool begun;
};

/* ---- what is wished for ---- */

static uint32_t number_take(const char **text)
{
	uint64_t v = dc_text_decimal(*text);
	while (**text >= '0' && **text <= '9')
		++*text;
	while (**text == ' ')
		++*text;
	return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

/* Filters of ours; without a count (before Linux 5.9) one is too many. */
static uint32_t filters(void)
{
	static char text[4096]; /* one start at a time */
	if (dc_slurp("/proc/self/status", text, sizeof text) <= 0)
		return UINT32_MAX;
	const char *mode = strstr(text, "\nSeccomp:\t"), *count = strstr(text, "\nSeccomp_filters:\t");
	if (mode && mode[10] == '0')
		return 0;
	return mode && mode[10] == '2' && count ? (uint32_t)dc_text_decimal(count + 18) : UINT32_MAX;
}

static bool wish_read(const struct dc_place *p, struct wish *ret_wish)
{
	char text[128];
	long fd = dc_sys(SYS_openat, p->fd, "watch.lock", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	long n = dc_sys(SYS_read, fd, text, sizeof text - 1);
	dc_sys(SYS_close, fd);
	text[n > 0 ? n : 0] = 0;
	const char *at = strstr(text, "\n" DC_HANDOVER_WORD);
	if (!at)
		return false;
	at += sizeof DC_HANDOVER_WORD;
	if (number_take(&at) != DC_HANDOVER_VERSION)
		return false;
	*ret_wish = (struct wish){ .hz = number_take(&at) };
	ret_wish->copy_bytes = number_take(&at);
	ret_wish->kernel = number_take(&at);
	ret_wish->cpus = number_take(&at);
	return ret_wish->hz && ret_wish->hz <= 10000 && ret_wish->cpus <= DC_HANDOVER_CPUS_MAX && filters() <= number_take(&at);
}

/* Who gets the events may look into our stacks: root or our own user. */
static int connect_to(const struct dc_place *p)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct ucred peer = { 0 };
	socklen_t bytes = sizeof peer;
	dc_text_put(to.sun_path, sizeof to.sun_path, dc_text_put(to.sun_path, sizeof to.sun_path, 0, p->dir), "/" DC_HANDOVER_SOCKET);
	long fd = dc_sys(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return (int)fd;
	long err = dc_sys(SYS_connect, fd, &to, sizeof to);
	if (!err)
		err = dc_sys(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes);
	if (!err && peer.uid != 0 && peer.uid != p->uid)
		err = -EPERM;
	if (err) {
		dc_sys(SYS_close, fd);
		return (int)err;
	}
	return (int)fd;
}

/* ---- the events of a thread on a CPU ---- */

struct parcel {
	struct dc_handover message;
	int fds[DC_HANDOVER_EVENTS];
};

static int event_add(struct parcel *p, const struct wish *w, uint32_t tid, enum dc_perf_kind kind, uint32_t shift)
{
	const bool off = kind == DC_PERF_OFF; /* a switch is counted in the kernel only */
	const struct dc_perf_shape shape = {
		.hz = w->hz,
		.off_period = UINT64_C(1) << shift,
		.copy_bytes = w->copy_bytes,
		.kernel = off || w->kernel,
		.no_kernel_chain = off && !w->kernel,
		.later = true,
	};
	struct perf_event_attr attr = { 0 };
	dc_perf_describe(kind, &shape, &attr);
	attr.inherit_thread = 1; /* a child hands over its own */
	long fd = dc_sys(SYS_perf_event_open, &attr, tid, p->message.cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd == -EINVAL) { /* before Linux 5.13 */
		attr.inherit_thread = 0;
		fd = dc_sys(SYS_perf_event_open, &attr, tid, p->message.cpu, -1, PERF_FLAG_FD_CLOEXEC);
	}
	if (fd < 0)
		return (int)fd;
	p->fds[p->message.count] = (int)fd;
	p->message.event[p->message.count].kind = (uint8_t)kind;
	p->message.event[p->message.count++].shift = (uint8_t)shift;
	return 0;
}

static int parcel_fill(struct parcel *p, const struct wish *w, uint32_t tid)
{
	int err = event_add(p, w, tid, DC_PERF_CPU, 0);
	if (!err)
		err = event_add(p, w, tid, DC_PERF_SWITCHES, 0);
	for (uint32_t step = 0; !err && step < DC_HANDOVER_STEPS; step++)
		err = event_add(p, w, tid, DC_PERF_OFF, dc_handover_shift(step));
	/* without those off the CPU, where the kernel keeps its own time to itself */
	return p->message.count == 2 && (err == -EACCES || err == -EPERM) ? 0 : err;
}

static int parcel_send(const struct parcel *p, int to)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof p->fds)];
	} control = { 0 };
	const size_t bytes = p->message.count * sizeof(int);
	struct iovec io = { .iov_base = (void *)&p->message, .iov_len = sizeof p->message };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = (socklen_t)CMSG_SPACE(bytes) };
	control.head = (struct cmsghdr){ .cmsg_len = (socklen_t)CMSG_LEN(bytes), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.head), p->fds, bytes);
	const long n = dc_sys(SYS_sendmsg, to, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n == sizeof p->message ? 0 : n < 0 ? (int)n : -EIO;
}

static int hand_over(struct handing *h, uint32_t tid, uint32_t cpu)
{
	struct parcel p = { .message = { .version = DC_HANDOVER_VERSION, .pid = h->pid, .cpu = (uint16_t)cpu } };
	p.message.first = !h->begun;
	int err = parcel_fill(&p, &h->wish, tid);
	if (!err)
		err = parcel_send(&p, h->to);
	h->begun = h->begun || !err;
	for (uint32_t i = 0; i < p.message.count; i++)
		dc_sys(SYS_close, p.fds[i]);
	return err;
}

static int hand_over_thread(struct handing *h, uint32_t tid)
{
	int err = 0;
	for (uint32_t cpu = 0; !err && cpu < h->wish.cpus; cpu++) {
		err = hand_over(h, tid, cpu);
		if (err == -ENODEV) /* it is offline */
			err = 0;
	}
	return err == -ESRCH ? 0 : err; /* it has just ended */
}

/* ---- the threads there are; those to come inherit ---- */

struct name { /* the kernel's linux_dirent64 */
	uint64_t inode, next;
	uint16_t bytes;
	uint8_t type;
	char text[];
};

static void hand_over_all(struct handing *h)
{
	static _Alignas(uint64_t) uint8_t names[1024]; /* one start at a time; as many threads as a message's reader takes */
	long fd = dc_sys(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	const long n = dc_sys(SYS_getdents64, fd, names, sizeof names);
	dc_sys(SYS_close, fd);
	int err = 0;
	for (long at = 0; !err && at < n; at += ((const struct name *)(names + at))->bytes) {
		uint64_t tid = dc_text_decimal(((const struct name *)(names + at))->text);
		if (tid)
			err = hand_over_thread(h, (uint32_t)tid);
	}
}

void dc_handover(const struct dc_making *m)
{
	struct handing h = { .pid = m->r->pid };
	if (dc_sys(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0) == 1 || !wish_read(&m->place, &h.wish))
		return;
	h.to = connect_to(&m->place);
	if (h.to < 0)
		return;
	hand_over_all(&h);
	dc_sys(SYS_close, h.to);
}
