/* SPDX-License-Identifier: MIT */
/* What comes to the socket that takes descriptors is hostile: the guests here send what no guest would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/perf_attr.h"
#include "scratch.h"
#include "trigger/handover.h"
#include "trigger/perf_event.h"

#define MANY 253u /* SCM_MAX_FD */

static char dir[SCRATCH_BYTES];
static struct dc_handover_socket *taker;
static struct dc_handed last;
static unsigned taken;
static int answer;

static int on_handed(void *arg, struct dc_handed *handed)
{
	(void)arg;
	last = *handed;
	taken++;
	return answer;
}

static int setup(void **state)
{
	(void)state;
	taken = 0;
	answer = 0;
	scratch_memory("dctest", dir);
	return dc_handover_open(dir, on_handed, NULL, &taker);
}

static int teardown(void **state)
{
	(void)state;
	dc_handover_close(taker);
	scratch_remove(dir);
	return 0;
}

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int connected(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "%.90s/%s", dir, DC_HANDOVER_SOCKET);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* All that is there to be done. */
static void serve(void)
{
	struct pollfd p = {.fd = dc_handover_fd(taker), .events = POLLIN};

	for (unsigned i = 0; i < 100 && poll(&p, 1, 0) == 1; i++)
		dc_handover_dispatch(taker);
}

static bool hung_up(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static bool sent(int to, const void *bytes, size_t size, const int *fds, unsigned count)
{
	static union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(MANY * sizeof(int))];
	} control;
	struct iovec io = {.iov_base = (void *)bytes, .iov_len = size};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};

	if (count) {
		m.msg_control = &control;
		m.msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof(int)); /* musl has these of 32 bits */
		control.head = (struct cmsghdr){
			.cmsg_len = (socklen_t)CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
	}
	return sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

static struct dc_handover message(uint16_t count)
{
	return (struct dc_handover){.version = DC_HANDOVER_VERSION,
				    .pid = (uint32_t)getpid(),
				    .first = 1,
				    .count = count,
				    .event = {{DC_PERF_CPU, 0}, {DC_PERF_OFF, 5}}};
}

static int perf_event(void)
{
	const struct dc_perf_shape shape = {.hz = 49, .later = true};
	uint64_t id;
	int fd;

	if (dc_perf_open(DC_PERF_CPU, &shape, 0, 0, &fd, &id) < 0)
		skip();
	return fd;
}

/* Sends it, and has it refused: nobody hears of it, nothing stays open, and its sender has to go. */
static void check_refused(const void *bytes, size_t size, const int *fds, unsigned count)
{
	CLEANUP(close_fd) int to = connected();
	const unsigned before = open_files();

	assert_true(sent(to, bytes, size, fds, count));
	serve();
	assert_int_equal(taken, 0);
	assert_int_equal(open_files(), before);
	assert_true(hung_up(to));
}

static void test_taken(void **state)
{
	/* Perf events come as what the message says they are, with the kernel's word on who sent them; what is not kept is closed. */
	CLEANUP(close_fd) int a = perf_event(), b = perf_event(), to = connected();
	struct dc_handover m = message(2);
	const unsigned before = open_files();

	(void)state;
	m.cpu = 3;
	assert_true(sent(to, &m, sizeof(m), (int[]){a, b}, 2));
	serve();
	assert_int_equal(taken, 1);
	assert_true(last.pid == (uint32_t)getpid() && last.first && last.cpu == 3 && last.count == 2);
	assert_true(last.event[0].kind == DC_PERF_CPU && last.event[1].kind == DC_PERF_OFF && last.event[1].shift == 5);
	assert_int_equal(open_files(), before + 1); /* the connection goes on */
	assert_false(hung_up(to));
	m.first = 0;
	assert_true(sent(to, &m, sizeof(m), (int[]){a, b}, 2));
	serve();
	assert_true(taken == 2 && !last.first);
	answer = -EALREADY;
	assert_true(sent(to, &m, sizeof(m), (int[]){a, b}, 2));
	serve();
	assert_true(taken == 3 && hung_up(to));
	assert_int_equal(open_files(), before);
}

static void test_other_files(void **state)
{
	/* Files that are no perf events, alone or among them, and more of them than there may be, or than can be. */
	CLEANUP(close_fd) int event = perf_event(), memory = memfd_create("anon_inode:[perf_event]", MFD_CLOEXEC);
	int pipes[2], sockets[2], many[MANY];
	struct dc_handover one = message(1), two = message(2), all = message(DC_HANDOVER_EVENTS);

	(void)state;
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	check_refused(&one, sizeof(one), &memory, 1);
	check_refused(&one, sizeof(one), &pipes[0], 1);
	check_refused(&one, sizeof(one), &sockets[0], 1);
	check_refused(&two, sizeof(two), (int[]){event, pipes[1]}, 2);
	for (unsigned i = 0; i < MANY; i++)
		many[i] = event;
	check_refused(&all, sizeof(all), many, MANY);
	check_refused(&all, sizeof(all), many, DC_HANDOVER_EVENTS + 1);
	all.count = UINT16_MAX;
	check_refused(&all, sizeof(all), many, MANY);
	for (unsigned i = 0; i < 2; i++) {
		close(pipes[i]);
		close(sockets[i]);
	}
}

static void test_other_messages(void **state)
{
	/* A message that is none, that has other descriptors than it says, of another process, or of what there is not. */
	CLEANUP(close_fd) int event = perf_event();
	const struct dc_handover good = message(1), none = message(0), two = message(2);
	struct dc_handover m = good;
	uint8_t longer[sizeof(m) + 8] = {0};

	(void)state;
	check_refused(&good, sizeof(good), NULL, 0);
	check_refused(&none, sizeof(none), NULL, 0);
	check_refused(&none, sizeof(none), &event, 1);
	check_refused(&two, sizeof(two), &event, 1);
	check_refused(&good, sizeof(good) - 1, &event, 1);
	check_refused(&good, 1, &event, 1);
	memcpy(longer, &good, sizeof(good));
	check_refused(longer, sizeof(longer), &event, 1);
	m.version++;
	check_refused(&m, sizeof(m), &event, 1);
	m = good;
	m.pid = 1;
	check_refused(&m, sizeof(m), &event, 1);
	m = good;
	m.cpu = DC_HANDOVER_CPUS_MAX;
	check_refused(&m, sizeof(m), &event, 1);
	m = good;
	m.event[0].kind = DC_PERF_CHANGES;
	check_refused(&m, sizeof(m), &event, 1);
	m.event[0].kind = DC_PERF_OFF;
	m.event[0].shift = 63;
	check_refused(&m, sizeof(m), &event, 1);
}

static void test_idlers(void **state)
{
	/* Those who connect and say nothing keep nobody out, and leave nothing behind. */
	int idle[40];
	CLEANUP(close_fd) int event = perf_event();
	struct dc_handover m = message(1);
	const unsigned before = open_files();

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		idle[i] = connected();
		serve();
	}
	assert_in_range(open_files(), before + 41, before + 40 + 17);
	assert_true(sent(idle[39], &m, sizeof(m), &event, 1));
	serve();
	assert_int_equal(taken, 1);
	assert_true(hung_up(idle[0]));
	for (unsigned i = 0; i < 40; i++)
		close(idle[i]);
	serve();
	assert_int_equal(open_files(), before);
}

/* Connects and sends as somebody else, through a socket that lets everybody in. */
static int as_another(void)
{
	const struct dc_handover m = message(1);
	char path[SCRATCH_BYTES + 16];
	int event = perf_event(), to;

	snprintf(path, sizeof(path), "%s/%s", dir, DC_HANDOVER_SOCKET);
	if (chmod(dir, 0755) < 0 || chmod(path, 0666) < 0 || setresuid(65534, 65534, 65534) < 0)
		return __LINE__;
	to = connected();
	return sent(to, &m, sizeof(m), &event, 1) ? 0 : __LINE__;
}

static void test_another_user(void **state)
{
	/* Nothing is taken from another user, who could not stop us, even where he gets at the socket. */
	const unsigned before = open_files();
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	close(perf_event()); /* or it is skipped */
	pid = fork();
	if (pid == 0)
		_exit(as_another() & 0xff);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	serve();
	assert_int_equal(taken, 0);
	assert_int_equal(open_files(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_idlers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_user, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
