/* SPDX-License-Identifier: MIT */
#include "trigger/death.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/proc.h"

/* linux/pidfd.h of 6.15; the headers of older distributions do not have it yet. */
struct pidfd_info {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t pid, tgid, ppid;
	uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
	int32_t exit_code;
};
#define PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)
#define PIDFD_INFO_EXIT (UINT64_C(1) << 3)
static_assert(sizeof(struct pidfd_info) == 64, "PIDFD_INFO_SIZE_VER0");

static int open_pidfd(uint32_t pid)
{
	return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
}

/* Return: 0 and the status, -EAGAIN: knows but not yet (alive, or a zombie), -ENODATA: this kernel does not tell. */
static int ask_pidfd(int pidfd, int *ret_status)
{
	struct pidfd_info info = {.mask = PIDFD_INFO_EXIT};

	if (ioctl(pidfd, PIDFD_GET_INFO, &info) < 0)
		return -ENODATA;
	if (!(info.mask & PIDFD_INFO_EXIT))
		return -EAGAIN;
	*ret_status = info.exit_code;
	return 0;
}

bool dc_death_supported(void)
{
	CLEANUP(close_fd) int pidfd = -1;
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(7);
	if (pid < 0)
		return false;
	pidfd = open_pidfd((uint32_t)pid);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	return pidfd >= 0 && ask_pidfd(pidfd, &status) == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 7;
}

int dc_death_watch(uint32_t pid, uint64_t start_time, int *ret_pidfd)
{
	CLEANUP(close_fd) int fd = -1;
	struct dc_proc_stat st;

	if (pid == 0)
		return -ESRCH;
	fd = open_pidfd(pid);
	if (fd < 0)
		return -errno;
	/* Only now: the descriptor cannot change its process any more, so what /proc says is of this one. */
	if (dc_proc_stat(pid, &st) < 0 || st.start_time != start_time)
		return -ESRCH;
	*ret_pidfd = TAKE_FD(fd);
	return 0;
}

int dc_death_ask(int pidfd, uint32_t pid, uint64_t start_time, int *ret_status)
{
	struct dc_proc_stat st;
	int r = ask_pidfd(pidfd, ret_status);

	if (r == 0)
		return 0;
	if (dc_proc_stat(pid, &st) < 0 || st.start_time != start_time)
		return r == -EAGAIN ? -EAGAIN : -ENODATA;
	if (st.state != 'Z')
		return -EAGAIN;
	/* 0 is both "exited with 0" and "you may not see it"; only the pidfd can tell the two apart. */
	if (st.exit_status == 0)
		return -EAGAIN;
	*ret_status = st.exit_status;
	return 0;
}

/* Netlink header, connector header, one word; laid out by hand because the second ends in a flexible array. */
static int connector_listen(int fd)
{
	const uint32_t op = PROC_CN_MCAST_LISTEN;
	const struct cn_msg cn = {.id = {.idx = CN_IDX_PROC, .val = CN_VAL_PROC}, .len = sizeof(op)};
	uint8_t bytes[NLMSG_SPACE(sizeof(cn) + sizeof(op))] = {0};
	const struct nlmsghdr nl = {.nlmsg_len = NLMSG_LENGTH(sizeof(cn) + sizeof(op)),
				    .nlmsg_type = NLMSG_DONE};

	memcpy(bytes, &nl, sizeof(nl));
	memcpy(bytes + NLMSG_HDRLEN, &cn, sizeof(cn));
	memcpy(bytes + NLMSG_HDRLEN + sizeof(cn), &op, sizeof(op));
	return send(fd, bytes, nl.nlmsg_len, 0) < 0 ? -errno : 0;
}

/*
 * Ends of whole processes only: forks and threads of the host take no room. Loads are big-endian. Where
 * the filter is refused all events come, and exit_of() sorts them.
 */
static void connector_filter(int fd)
{
	const uint32_t event = NLMSG_HDRLEN + sizeof(struct cn_msg);
	const uint32_t pid = event + offsetof(struct proc_event, event_data.exit.process_pid);
	const uint32_t tgid = event + offsetof(struct proc_event, event_data.exit.process_tgid);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, event + offsetof(struct proc_event, what)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXIT), 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, pid),
		BPF_STMT(BPF_MISC | BPF_TAX, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, tgid),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	const int room = 1 << 20; /* some thousand messages: they are read four times a second */
	const struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
}

int dc_death_connector(int *ret_fd)
{
	CLEANUP(close_fd)
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR);
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
	int r;

	if (fd < 0)
		return -errno;
	connector_filter(fd);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	r = connector_listen(fd);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* One datagram: netlink header, connector header, event. Only the kernel (port 0) is believed. */
static bool exit_of(const uint8_t *bytes, size_t n, const struct sockaddr_nl *from,
		    struct proc_event *ret_event)
{
	const size_t head = NLMSG_HDRLEN + sizeof(struct cn_msg);
	struct cn_msg cn;

	if (from->nl_pid != 0 || n < head + sizeof(*ret_event))
		return false;
	memcpy(&cn, bytes + NLMSG_HDRLEN, sizeof(cn));
	if (cn.id.idx != CN_IDX_PROC || cn.id.val != CN_VAL_PROC)
		return false;
	memcpy(ret_event, bytes + head, sizeof(*ret_event));
	return ret_event->what == PROC_EVENT_EXIT &&
	       ret_event->event_data.exit.process_pid == ret_event->event_data.exit.process_tgid;
}

void dc_death_connector_read(int fd, void (*each)(void *arg, uint32_t pid, int status), void *arg)
{
	uint8_t bytes[1024] __attribute__((aligned(8)));
	struct sockaddr_nl from = {0};
	struct proc_event event;
	socklen_t from_bytes = sizeof(from);
	ssize_t n;

	while ((n = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &from_bytes)) > 0) {
		if (exit_of(bytes, (size_t)n, &from, &event))
			each(arg, (uint32_t)event.event_data.exit.process_tgid,
			     (int)event.event_data.exit.exit_code);
		from_bytes = sizeof(from);
	}
}
