/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/http.h"

#define LINES 20000

static char dir[] = "/tmp/test_http.XXXXXX";
static char path[64], address[80];
static unsigned pages;

static void page(void *arg, FILE *out)
{
	const int *lines = arg;

	pages++;
	for (int i = 0; i < *lines; i++)
		fprintf(out, "line %d of a page\n", i);
}

static struct dc_http *open_http(int *lines)
{
	struct dc_http *h = NULL;
	char why[DC_WHY_BYTES];

	assert_int_equal(dc_http_new(address, page, lines, &h, why), 0);
	return h;
}

static int join(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, path);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void work(struct dc_http *h, int64_t now)
{
	struct pollfd in = {.fd = dc_http_fd(h), .events = POLLIN};

	while (poll(&in, 1, 0) == 1)
		dc_http_dispatch(h, now);
}

/* All that came back until the end of the connection; @h works meanwhile. NULL: it does not end. */
static char *answer(struct dc_http *h, int fd)
{
	size_t got = 0, room = 1u << 20;
	char *text = calloc(1, room);

	assert_non_null(text);
	for (int i = 0; i < 10000; i++) {
		ssize_t n;

		work(h, 0);
		n = recv(fd, text + got, room - 1 - got, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno == ECONNRESET)) {
			close(fd);
			return text;
		}
		got += n > 0 ? (size_t)n : 0;
	}
	free(text);
	return NULL;
}

static void asks(struct dc_http *h, const char *request, const char *begins)
{
	int fd = join();
	CLEANUP(free) char *text = NULL;

	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
	text = answer(h, fd);
	assert_non_null(text);
	if (strncmp(text, begins, strlen(begins)) != 0)
		fail_msg("'%.40s' gave '%.60s', expected '%s'", request, text, begins);
	if (begins[0]) {
		const char *body = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");

		assert_true(body && length);
		assert_int_equal(strlen(body + 4), strtoul(length + 16, NULL, 10));
	}
}

static void test_addresses(void **state)
{
	/* The loopback and Unix sockets are listened at, nothing else; each refusal says what was expected. */
	static const char *const good[] = {"127.0.0.1:9100", "127.1.2.3:1", "[::1]:65535", "unix:/run/x.sock",
					   "unix:x"};
	static const char *const bad[] = {
		"",
		"9100",
		"0.0.0.0:9100",
		"10.0.0.1:9100",
		"[::]:9100",
		"[2001:db8::1]:80",
		"localhost",
		"127.0.0.1",
		"127.0.0.1:0",
		"127.0.0.1:65536",
		"127.0.0.1:http",
		"127.0.0.1:-1",
		"unix:",
		"localhost:9100",
		":9100",
		"127.0.0.1:80 extra",
		"128.0.0.1:80",
		"[127.0.0.1:80",
	};
	char why[DC_WHY_BYTES], longer[300];

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(dc_http_check(good[i], why), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (dc_http_check(bad[i], why) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
		assert_non_null(strstr(why, "expected unix:PATH or 127.0.0.1:PORT"));
	}
	memset(longer, 'x', sizeof(longer));
	memcpy(longer, "unix:/", 6);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(dc_http_check(longer, why), -EINVAL);
}

static void test_requests(void **state)
{
	/* GET /metrics gives the page, all else one line of refusal; whatever comes, the connection ends. */
	int lines = 3;
	struct dc_http *h = open_http(&lines);
	char large[DC_HTTP_REQUEST_BYTES + 100];
	const unsigned before = pages;

	(void)state;
	asks(h, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
	     "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4;");
	asks(h, "GET /metrics?x=1 HTTP/1.0\r\n\r\n", "HTTP/1.1 200");
	assert_int_equal(pages, before + 2);
	asks(h, "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404");
	asks(h, "GET /metricsx HTTP/1.1\r\n\r\n", "HTTP/1.1 404");
	asks(h, "POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405");
	asks(h, "DELETE /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405");
	asks(h, "GET\r\n\r\n", "HTTP/1.1 400");
	asks(h, "\r\n\r\n", "HTTP/1.1 400");
	asks(h, "GET /metrics\r\n\r\n", "HTTP/1.1 400");
	memset(large, 'a', sizeof(large));
	large[sizeof(large) - 1] = '\0';
	asks(h, large, "HTTP/1.1 400");
	assert_int_equal(pages, before + 2);
	dc_http_free(h);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_pieces(void **state)
{
	/* A request may come byte by byte, and a page larger than the socket's buffer goes in pieces. */
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
	int lines = LINES;
	struct dc_http *h = open_http(&lines);
	CLEANUP(free) char *text = NULL;
	int fd = join();

	(void)state;
	for (size_t i = 0; i < sizeof(request) - 1; i++) {
		assert_int_equal(send(fd, request + i, 1, MSG_NOSIGNAL), 1);
		work(h, 0);
	}
	text = answer(h, fd);
	assert_non_null(text);
	assert_non_null(strstr(text, "line 19999 of a page\n"));
	dc_http_free(h);
}

static void test_slow_and_many(void **state)
{
	/* Who says nothing is let go when its time is up; meanwhile one too many is turned away, and later ones are served. */
	int lines = 1, fds[DC_HTTP_CLIENTS_MAX + 1];
	struct dc_http *h = open_http(&lines);
	char byte;

	(void)state;
	for (unsigned i = 0; i <= DC_HTTP_CLIENTS_MAX; i++) {
		fds[i] = join();
		work(h, 1000);
	}
	assert_int_equal(recv(fds[DC_HTTP_CLIENTS_MAX], &byte, 1, MSG_DONTWAIT), 0);
	for (unsigned i = 0; i < DC_HTTP_CLIENTS_MAX; i++)
		assert_int_equal(recv(fds[i], &byte, 1, MSG_DONTWAIT), -1);
	send(fds[0], "GET /me", 7, MSG_NOSIGNAL); /* a byte now and then keeps nobody's place */
	work(h, DC_HTTP_TIMEOUT_NS);
	dc_http_tick(h, 1000 + DC_HTTP_TIMEOUT_NS);
	assert_int_equal(recv(fds[0], &byte, 1, MSG_DONTWAIT), -1);
	dc_http_tick(h, 1001 + DC_HTTP_TIMEOUT_NS);
	for (unsigned i = 0; i < DC_HTTP_CLIENTS_MAX; i++)
		assert_true(recv(fds[i], &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET);
	for (unsigned i = 0; i <= DC_HTTP_CLIENTS_MAX; i++)
		close(fds[i]);
	asks(h, "GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200");
	dc_http_free(h);
}

static void test_places(void **state)
{
	/* A socket left behind is replaced; one that somebody listens at is not, nor is any other file; who may connect
	 * is the owner and the group. */
	struct sockaddr_un left = {.sun_family = AF_UNIX};
	int lines = 1, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct dc_http *h, *second = NULL;
	char why[DC_WHY_BYTES];
	struct stat st;

	(void)state;
	strcpy(left.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&left, sizeof(left)), 0);
	close(fd);
	h = open_http(&lines);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	assert_int_equal(dc_http_new(address, page, &lines, &second, why), -EADDRINUSE);
	assert_null(second);
	close(join()); /* it is still the first one's */
	dc_http_free(h);
	fclose(fopen(path, "w"));
	assert_int_equal(dc_http_new(address, page, &lines, &h, why), -EADDRINUSE);
	assert_non_null(strstr(why, "cannot listen at"));
	assert_int_equal(unlink(path), 0);
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/sock", dir);
	snprintf(address, sizeof(address), "unix:%s", path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),     cmocka_unit_test(test_requests), cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_slow_and_many), cmocka_unit_test(test_places),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
