/* SPDX-License-Identifier: MIT */
/*
 * One connection: bytes in, requests, answers, bytes out. Both buffers have a fixed size. While an answer
 * might not fit, no further request is taken, and while the input is full nothing is read: a client that does
 * not read its answers slows down itself.
 *
 *     socket → in[] → http_parse() → service_answer() → out[] → socket
 */
#pragma once

#include "tools/demo.d/service.h"

struct conn;

/* @fd: a non-blocking socket; the connection owns it. Return: NULL: no memory, @fd is still the caller's. */
struct conn *conn_new(int fd);
void conn_free(struct conn *c); /* closes the socket */
int conn_fd(const struct conn *c);

/*
 * conn_run() - do all that can be done without waiting
 * Return: the epoll events to wait for, 0 when the connection is over.
 */
uint32_t conn_run(struct conn *c, const struct service *s);
