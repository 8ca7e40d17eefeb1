/* SPDX-License-Identifier: MIT */
/*
 * A worker: one thread, one epoll, the connections it accepted. Workers share the listening socket and the
 * service, nothing else; a connection stays with the worker that accepted it.
 */
#pragma once

#include <pthread.h>

#include "tools/demo.d/service.h"

struct worker {
	pthread_t thread;
	unsigned number;
	int listen_fd;
	int stop_fd; /* eventfd: readable when it is time to go; never read, so that all workers see it */
	const struct service *service;
};

/* The caller fills the struct. Return: 0, -errno of making the thread. */
int worker_start(struct worker *w);
void worker_join(struct worker *w); /* closes its listening socket */
