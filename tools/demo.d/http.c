/* SPDX-License-Identifier: MIT */
#include "tools/demo.d/http.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

bool http_is(struct http_text text, const char *word)
{
	return text.length == strlen(word) && !strncasecmp(text.at, word, text.length);
}

/* Up to @end or the first @stop; *at moves behind the stop. False: there is none. */
static bool take_until(const char **at, const char *end, char stop, struct http_text *ret_text)
{
	const char *found = memchr(*at, stop, (size_t)(end - *at));
	if (!found)
		return false;
	*ret_text = (struct http_text){*at, (size_t)(found - *at)};
	*at = found + 1;
	return true;
}

static struct http_text trimmed(struct http_text text)
{
	while (text.length && (*text.at == ' ' || *text.at == '\t')) {
		text.at++;
		text.length--;
	}
	while (text.length && strchr(" \t\r", text.at[text.length - 1]))
		text.length--;
	return text;
}

static int parse_length(struct http_text digits, size_t *ret_length)
{
	size_t length = 0;

	if (!digits.length)
		return -EBADMSG;
	for (size_t i = 0; i < digits.length; i++) {
		if (digits.at[i] < '0' || digits.at[i] > '9')
			return -EBADMSG;
		length = length * 10 + (size_t)(digits.at[i] - '0');
		if (length > HTTP_BODY_MAX)
			return -EMSGSIZE;
	}
	*ret_length = length;
	return 0;
}

static int parse_request_line(const char **at, const char *end, struct http_request *r)
{
	struct http_text line, version;
	if (!take_until(at, end, '\n', &line))
		return -EBADMSG;

	const char *from = line.at, *to = line.at + line.length;
	if (!take_until(&from, to, ' ', &r->method) || !take_until(&from, to, ' ', &r->path))
		return -EBADMSG;

	version = trimmed((struct http_text){from, (size_t)(to - from)});
	if (!http_is(version, "HTTP/1.1") && !http_is(version, "HTTP/1.0"))
		return -EBADMSG;
	r->keep_alive = http_is(version, "HTTP/1.1");
	return r->method.length && r->path.length ? 0 : -EBADMSG;
}

static int parse_field(struct http_text line, struct http_request *r)
{
	struct http_text name, value;
	const char *from = line.at, *to = line.at + line.length;
	if (!take_until(&from, to, ':', &name))
		return -EBADMSG;
	value = trimmed((struct http_text){from, (size_t)(to - from)});

	if (http_is(name, "content-length"))
		return parse_length(value, &r->body.length);
	if (http_is(name, "transfer-encoding"))
		return -ENOSYS;
	if (http_is(name, "connection"))
		r->keep_alive = http_is(value, "close") ? false
							: http_is(value, "keep-alive") || r->keep_alive;
	return 0;
}

ssize_t http_parse(const char *bytes, size_t size, struct http_request *ret_request)
{
	size_t looked = size < HTTP_HEAD_MAX ? size : HTTP_HEAD_MAX;
	const char *end = memmem(bytes, looked, "\r\n\r\n", 4);
	if (!end)
		return looked == HTTP_HEAD_MAX ? -EMSGSIZE : 0;
	end += 2; /* the last field's line end belongs to the fields */

	struct http_request r = {.keep_alive = true};
	const char *at = bytes;
	int error = parse_request_line(&at, end, &r);
	for (struct http_text line; !error && take_until(&at, end, '\n', &line);)
		error = parse_field(line, &r);
	if (error)
		return error;

	r.body.at = end + 2;
	size_t total = (size_t)(r.body.at - bytes) + r.body.length;
	if (total > size)
		return 0;
	*ret_request = r;
	return (ssize_t)total;
}

static const char *reason_of(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 201:
		return "Created";
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 413:
		return "Content Too Large";
	case 501:
		return "Not Implemented";
	case 507:
		return "Insufficient Storage";
	default:
		return "Internal Server Error";
	}
}

size_t http_head(char *head, int status, size_t body_length, bool keep_alive)
{
	int n = snprintf(head, HTTP_RESPONSE_HEAD_MAX, "HTTP/1.1 %d %s\r\nContent-Length: %zu\r\n%s\r\n",
			 status, reason_of(status), body_length, keep_alive ? "" : "Connection: close\r\n");
	return (size_t)n;
}
