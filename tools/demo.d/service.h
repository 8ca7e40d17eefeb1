/* SPDX-License-Identifier: MIT */
/*
 * What the server does: one request in, one answer out. Knows HTTP's words and the table, no sockets.
 *
 *     GET, PUT, DELETE /kv/KEY      the values
 *     GET  /stats                   how many entries and bytes
 *     POST /snapshot                all values into the snapshot file
 *     GET  /peer/NAME               the peer's number (--journal)
 *     POST /fault/NAME              something goes wrong (--faults, fault.h)
 */
#pragma once

#include "tools/demo.d/backend.h"
#include "tools/demo.d/http.h"
#include "tools/demo.d/table.h"

struct service {
	struct table *table;
	struct backend *backend; /* NULL: none */
	const char *snapshot; /* file, NULL: none is written */
};

/*
 * service_answer() - do what @request asks for
 * @body: TABLE_VALUE_MAX bytes for the answer's body. Return: HTTP status; *ret_length bytes of body.
 */
int service_answer(const struct service *s, const struct http_request *request, char *body,
		   size_t *ret_length);
