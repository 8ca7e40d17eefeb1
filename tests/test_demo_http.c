/* SPDX-License-Identifier: MIT */
/* The demo server's HTTP parser: whatever the network does to the bytes, the requests are the same. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/demo.d/http.h"

static const char two[] =
	"PUT /kv/a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /kv/b HTTP/1.0\r\nX: y\r\n\r\n";
#define FIRST_BYTES (sizeof(two) - 1 - strlen("GET /kv/b HTTP/1.0\r\nX: y\r\n\r\n"))

/* The exact bytes on the heap, so that a sanitizer sees one too far. */
static ssize_t parse(const char *bytes, size_t size, struct http_request *r)
{
	static char *copy;
	free(copy);
	copy = malloc(size ? size : 1);
	memcpy(copy, bytes, size);
	return http_parse(copy, size, r);
}

static ssize_t parse_text(const char *text)
{
	struct http_request r;
	return parse(text, strlen(text), &r);
}

/* A request cut at any byte is not complete; with its last byte it is, and what follows stays. */
static void test_split_anywhere(void **state)
{
	struct http_request r;
	(void)state;

	for (size_t n = 0; n < FIRST_BYTES; n++)
		assert_int_equal(parse(two, n, &r), 0);
	for (size_t n = FIRST_BYTES; n < sizeof(two); n++)
		assert_int_equal(parse(two, n, &r), FIRST_BYTES);
	assert_true(http_is(r.method, "PUT"));
	assert_true(http_is(r.path, "/kv/a"));
	assert_int_equal(r.body.length, 3);
	assert_memory_equal(r.body.at, "abc", 3);
	assert_true(r.keep_alive);
}

/* The second request of a pipeline is found where the first one ended; HTTP/1.0 closes. */
static void test_pipeline(void **state)
{
	struct http_request r;
	(void)state;

	assert_int_equal(parse(two + FIRST_BYTES, sizeof(two) - 1 - FIRST_BYTES, &r),
			 sizeof(two) - 1 - FIRST_BYTES);
	assert_true(http_is(r.path, "/kv/b"));
	assert_false(r.keep_alive);
	assert_int_equal(r.body.length, 0);
}

/* What cannot be followed is refused, each with its own error. */
static void test_refused(void **state)
{
	(void)state;

	assert_int_equal(parse_text("garbage\r\n\r\n"), -EBADMSG);
	assert_int_equal(parse_text("GET / SPDY/9\r\n\r\n"), -EBADMSG);
	assert_int_equal(parse_text("GET  HTTP/1.1\r\n\r\n"), -EBADMSG);
	assert_int_equal(parse_text("GET / HTTP/1.1\r\nno colon\r\n\r\n"), -EBADMSG);
	assert_int_equal(parse_text("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), -EBADMSG);
	assert_int_equal(parse_text("PUT / HTTP/1.1\r\nContent-Length: \r\n\r\n"), -EBADMSG);
	assert_int_equal(parse_text("PUT / HTTP/1.1\r\nContent-Length: 16385\r\n\r\n"), -EMSGSIZE);
	assert_int_equal(parse_text("PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
			 -EMSGSIZE);
	assert_int_equal(parse_text("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), -ENOSYS);
}

/* A head without an end is refused as soon as it is longer than any head may be, and not before. */
static void test_endless_head(void **state)
{
	char head[HTTP_HEAD_MAX];
	struct http_request r;
	(void)state;

	memset(head, 'a', sizeof(head));
	assert_int_equal(parse(head, sizeof(head) - 1, &r), 0);
	assert_int_equal(parse(head, sizeof(head), &r), -EMSGSIZE);
}

/* The head of a response fits its room with the largest numbers. */
static void test_head(void **state)
{
	char head[HTTP_RESPONSE_HEAD_MAX];
	(void)state;

	size_t n = http_head(head, 413, SIZE_MAX, false);
	assert_true(n < sizeof(head));
	head[n] = '\0';
	assert_non_null(strstr(head, "HTTP/1.1 413 Content Too Large\r\n"));
	assert_string_equal(head + n - 4, "\r\n\r\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_anywhere), cmocka_unit_test(test_pipeline),
		cmocka_unit_test(test_refused),        cmocka_unit_test(test_endless_head),
		cmocka_unit_test(test_head),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
