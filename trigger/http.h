/* SPDX-License-Identifier: MIT */
/*
 * One page over HTTP/1.1, for whoever collects figures: GET /metrics, nothing else. On the loopback or a Unix socket only.
 *
 * It waits for nobody: descriptors do not block, a client has DC_HTTP_TIMEOUT_NS for all it does, there are at most
 * DC_HTTP_CLIENTS_MAX of them, a request is at most DC_HTTP_REQUEST_BYTES long, and after one reply the connection ends.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "trigger/rings.h"

#define DC_HTTP_CLIENTS_MAX 8u
#define DC_HTTP_TIMEOUT_NS INT64_C(5000000000)
#define DC_HTTP_REQUEST_BYTES 4096u

struct dc_http;

/*
 * dc_http_new() - listen at @address: unix:PATH, or 127.0.0.1:PORT and its like, or [::1]:PORT
 * @page: writes the body of /metrics
 * Return: 0; -EINVAL: not such an address; -errno. @ret_why: on error one line for people.
 */
int dc_http_new(const char *address, void (*page)(void *arg, FILE *out), void *arg, struct dc_http **ret_http,
		char ret_why[static DC_WHY_BYTES]);
void dc_http_free(struct dc_http *h);
/* Only whether @address is one. Return: 0, -EINVAL and @ret_why. */
int dc_http_check(const char *address, char ret_why[static DC_WHY_BYTES]);

/* Readable when there is something to do. */
int dc_http_fd(const struct dc_http *h);
void dc_http_dispatch(struct dc_http *h, int64_t now_ns);
/* Ends those whose time is up. To be called now and then. */
void dc_http_tick(struct dc_http *h, int64_t now_ns);
