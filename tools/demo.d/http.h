/* SPDX-License-Identifier: MIT */
/*
 * As much of HTTP/1.1 as a key-value server needs: bytes in, one request out, and the head of a response. No
 * memory of its own and no state: a request that is not complete yet is parsed again from its start when more
 * bytes are there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define HTTP_HEAD_MAX 4096u
#define HTTP_BODY_MAX 16384u
#define HTTP_REQUEST_MAX (HTTP_HEAD_MAX + HTTP_BODY_MAX)
#define HTTP_RESPONSE_HEAD_MAX 256u

struct http_text {
	const char *at;
	size_t length;
};

struct http_request {
	struct http_text method;
	struct http_text path;
	struct http_text body;
	bool keep_alive;
};

/*
 * http_parse() - the first request in @bytes; what follows it stays for the next call (pipelining)
 * Return: > 0 the bytes it took, 0 when it is not complete yet, -EBADMSG malformed, -EMSGSIZE head or body
 * too large, -ENOSYS a transfer encoding. After an error the stream cannot be followed any further.
 */
ssize_t http_parse(const char *bytes, size_t size, struct http_request *ret_request);

/* http_head() - the head of a response into @head, HTTP_RESPONSE_HEAD_MAX bytes. Return: its length. */
size_t http_head(char *head, int status, size_t body_length, bool keep_alive);

bool http_is(struct http_text text, const char *word);
