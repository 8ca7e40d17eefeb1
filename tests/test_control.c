/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ringfile.h"
#include "trigger/control.h"

static char dir[128];
static struct dc_control *control;
static struct dc_control_request last;
static struct ucred last_peer;
static uint64_t last_client;
static unsigned requests;

static void on_request(void *arg, uint64_t client, const struct ucred *peer,
		       const struct dc_control_request *q)
{
	struct dc_control_reply reply = {.op = q->op, .more = 1};

	(void)arg;
	last = *q;
	last_peer = *peer;
	last_client = client;
	requests++;
	snprintf(reply.text, sizeof(reply.text), "one");
	dc_control_reply(control, client, &reply);
	reply.more = 0;
	snprintf(reply.text, sizeof(reply.text), "two");
	dc_control_reply(control, client, &reply);
}

static int setup(void **state)
{
	(void)state;
	requests = 0;
	scratch_memory("dctest", dir);
	return dc_control_new(dir, on_request, NULL, &control);
}

static int teardown(void **state)
{
	(void)state;
	dc_control_free(control);
	scratch_remove(dir);
	return 0;
}

static void serve_once(void)
{
	struct pollfd p = {.fd = dc_control_fd(control), .events = POLLIN};

	assert_int_equal(poll(&p, 1, 5000), 1);
	dc_control_dispatch(control);
}

struct asking {
	struct dc_control_request request;
	struct dc_control_reply replies[4];
	int count, result;
	char why[DC_WHY_BYTES];
};

static void note(void *arg, const struct dc_control_reply *reply)
{
	struct asking *a = arg;

	if (a->count < 4)
		a->replies[a->count++] = *reply;
}

static void *ask(void *arg)
{
	struct asking *a = arg;

	a->result = dc_control_ask(dir, &a->request, note, a, a->why);
	return NULL;
}

static void test_request_and_replies(void **state)
{
	/* A request arrives as it was sent, with the peer the kernel names; all replies come back in order. */
	static struct asking a;
	pthread_t thread;

	(void)state;
	a.request = (struct dc_control_request){.version = DC_CONTROL_VERSION,
						.op = DC_CONTROL_TRIGGER,
						.pid = 7,
						.last_ns = -1,
						.name = "x*"};
	pthread_create(&thread, NULL, ask, &a);
	serve_once(); /* accept */
	serve_once(); /* request */
	pthread_join(thread, NULL);
	assert_int_equal(a.result, 2);
	assert_string_equal(a.replies[0].text, "one");
	assert_string_equal(a.replies[1].text, "two");
	assert_int_equal(last.pid, 7);
	assert_string_equal(last.name, "x*");
	assert_int_equal(last_peer.pid, getpid());
	assert_int_equal(last_peer.uid, getuid());
}

static int raw_connect(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.64s/watch.sock", dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void test_bad_requests(void **state)
{
	/* Another version, a wrong size, strings without end: answered or cut, never handed on, and the
	 * watcher goes on. */
	struct dc_control_request q = {.version = 99};
	struct dc_control_reply reply;
	int fd = raw_connect();

	(void)state;
	serve_once();
	assert_int_equal(send(fd, &q, sizeof(q), 0), sizeof(q));
	serve_once();
	assert_int_equal(recv(fd, &reply, sizeof(reply), 0), sizeof(reply));
	assert_int_equal(reply.error, -EPROTONOSUPPORT);
	close(fd);
	fd = raw_connect();
	serve_once();
	q.version = DC_CONTROL_VERSION;
	assert_int_equal(send(fd, &q, 20, 0), 20);
	serve_once();
	assert_int_equal(recv(fd, &reply, sizeof(reply), 0), sizeof(reply));
	assert_int_equal(reply.error, -EPROTO);
	assert_int_equal(requests, 0);
	close(fd);
	fd = raw_connect();
	serve_once();
	memset(&q, 'x', sizeof(q));
	q.version = DC_CONTROL_VERSION;
	assert_int_equal(send(fd, &q, sizeof(q), 0), sizeof(q));
	serve_once();
	assert_int_equal(requests, 1);
	assert_int_equal(strlen(last.name), sizeof(last.name) - 1);
	assert_int_equal(strlen(last.reason), sizeof(last.reason) - 1);
	close(fd);
}

static void test_peers_that_leave(void **state)
{
	/* A reply to somebody who has gone reaches nobody, also not the next one in the same place. */
	struct dc_control_request q = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_STATUS};
	struct dc_control_reply late = {.text = "late"}, got;
	uint64_t gone;
	int fd = raw_connect();

	(void)state;
	serve_once();
	assert_int_equal(send(fd, &q, sizeof(q), 0), sizeof(q));
	serve_once();
	gone = last_client;
	close(fd);
	fd = raw_connect();
	serve_once();
	dc_control_reply(control, gone, &late);
	assert_int_equal(recv(fd, &got, sizeof(got), MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	close(fd);
}

static void test_many_clients(void **state)
{
	/* Connections beyond the bound are closed at once; those within it are still served. */
	int fds[40];
	struct dc_control_request q = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_STATUS};
	struct dc_control_reply reply;

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		fds[i] = raw_connect();
		serve_once();
	}
	assert_int_equal(recv(fds[39], &reply, sizeof(reply), MSG_DONTWAIT), 0);
	assert_int_equal(send(fds[0], &q, sizeof(q), 0), sizeof(q));
	serve_once();
	assert_int_equal(recv(fds[0], &reply, sizeof(reply), 0), sizeof(reply));
	for (unsigned i = 0; i < 40; i++)
		close(fds[i]);
}

static void test_nobody_there(void **state)
{
	/* Without a watcher the client says so and what to do. */
	struct asking a = {.request = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_STATUS}};
	char empty[128];

	(void)state;
	scratch_memory("dctest", empty);
	assert_int_equal(dc_control_ask(empty, &a.request, note, &a, a.why), -ENOENT);
	assert_non_null(strstr(a.why, "no watcher"));
	scratch_remove(empty);
}

static void test_stopped(void **state)
{
	/* A watcher that takes connections and answers none is not waited for, even where a capture is. */
	struct asking a = {.request = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_RULES}};

	(void)state;
	dc_control_patience_ns = 20000000;
	assert_int_equal(dc_control_ask(dir, &a.request, note, &a, a.why), -ETIMEDOUT);
	assert_non_null(strstr(a.why, "does not answer"));
	a.request.op = DC_CONTROL_TRIGGER;
	a.request.flags = DC_CONTROL_WAIT;
	for (int i = 0; i < 20; i++) /* beyond what may queue */
		assert_int_equal(dc_control_ask(dir, &a.request, note, &a, a.why), -ETIMEDOUT);
	assert_int_equal(a.count, 0);
	dc_control_patience_ns = 5000000000;
}

static void test_impostor(void **state)
{
	/* A socket that neither root nor we listen on is not talked to. */
	struct asking a = {.request = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_STATUS}};

	(void)state;
	if (geteuid() != 0)
		skip();
	dc_control_free(control);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(seteuid(12345), 0);
	assert_int_equal(dc_control_new(dir, on_request, NULL, &control), 0);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(dc_control_ask(dir, &a.request, note, &a, a.why), -EPERM);
	assert_non_null(strstr(a.why, "neither root nor you"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_request_and_replies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_peers_that_leave, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_clients, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_impostor, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
