/* SPDX-License-Identifier: MIT */
#include "tools/demo.d/service.h"

#include <dashcam.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/demo.d/fault.h"

static int get(const struct service *s, struct http_text key, char *body, size_t *ret_length)
{
	int n = table_get(s->table, key.at, key.length, body);
	*ret_length = n > 0 ? (size_t)n : 0;
	return n < 0 ? 404 : 200;
}

static int put(const struct service *s, struct http_text key, struct http_text value)
{
	int r = table_put(s->table, key.at, key.length, value.at, value.length);
	if (r >= 0 && s->backend && backend_append(s->backend, key.at, key.length, value.at, value.length) < 0)
		return 507;
	return r == -EINVAL ? 400 : r < 0 ? 507 : r ? 201 : 200;
}

static int answer_kv(const struct service *s, const struct http_request *r, char *body, size_t *ret_length)
{
	struct http_text key = {r->path.at + strlen("/kv/"), r->path.length - strlen("/kv/")};

	if (http_is(r->method, "GET"))
		return get(s, key, body, ret_length);
	if (http_is(r->method, "PUT"))
		return put(s, key, r->body);
	if (http_is(r->method, "DELETE"))
		return table_delete(s->table, key.at, key.length) < 0 ? 404 : 200;
	return 405;
}

static int answer_stats(const struct service *s, char *body, size_t *ret_length)
{
	struct table_stats stats;
	table_count(s->table, &stats);
	if (fault_is(FAULT_SLOW_ROUTE))
		table_walk(s->table);
	*ret_length = (size_t)snprintf(body, TABLE_VALUE_MAX,
				       "{\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n", stats.entries,
				       stats.bytes);
	return 200;
}

/* Complete under its name or not there: written beside it, then renamed. */
static int64_t snapshot_to(const struct service *s, const char *path)
{
	char part[PATH_MAX];
	if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;

	int64_t n = table_snapshot(s->table, fd);
	if (n >= 0 && fsync(fd) < 0)
		n = -errno;
	close(fd);
	if (n >= 0 && rename(part, path) < 0)
		n = -errno;
	if (n < 0)
		unlink(part);
	return n;
}

static int answer_snapshot(const struct service *s, char *body, size_t *ret_length)
{
	if (!s->snapshot)
		return 404;

	DC_SPAN("snapshot", "file", s->snapshot);
	int64_t n = snapshot_to(s, s->snapshot);
	if (n < 0) {
		DC_LOG(DC_ERROR, "snapshot failed: error %d", (int)-n);
		return 507;
	}
	*ret_length = (size_t)snprintf(body, TABLE_VALUE_MAX, "{\"saved\":%" PRId64 "}\n", n);
	return 200;
}

static int answer_peer(const struct service *s, struct http_text path, char *body, size_t *ret_length)
{
	const size_t from = strlen("/peer/");
	unsigned number;

	if (!s->backend)
		return 404;
	if (backend_resolve(s->backend, path.at + from, path.length - from, &number) < 0)
		return 504;
	*ret_length = (size_t)snprintf(body, TABLE_VALUE_MAX, "%u\n", number);
	return 200;
}

static int answer_fault(struct http_text path)
{
	const size_t from = strlen("/fault/");
	int r = fault_order(path.at + from, path.length - from);
	return r == -EPERM ? 403 : r < 0 ? 404 : 200;
}

static bool starts(struct http_text path, const char *with)
{
	return path.length > strlen(with) && !memcmp(path.at, with, strlen(with));
}

int service_answer(const struct service *s, const struct http_request *request, char *body,
		   size_t *ret_length)
{
	*ret_length = 0;
	fault_of_request();
	table_fault(s->table);
	if (starts(request->path, "/kv/"))
		return answer_kv(s, request, body, ret_length);
	if (http_is(request->path, "/stats"))
		return http_is(request->method, "GET") ? answer_stats(s, body, ret_length) : 405;
	if (starts(request->path, "/peer/"))
		return http_is(request->method, "GET") ? answer_peer(s, request->path, body, ret_length) : 405;
	if (starts(request->path, "/fault/"))
		return http_is(request->method, "POST") ? answer_fault(request->path) : 405;
	if (http_is(request->path, "/snapshot"))
		return http_is(request->method, "POST") ? answer_snapshot(s, body, ret_length) : 405;
	return 404;
}
