/* SPDX-License-Identifier: MIT */
#include "tools/demo.d/worker.h"

#include <dashcam.h>
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/demo.d/conn.h"

#define CONNS_MAX 1024u
#define READY_MAX 64

/* epoll's data is a connection, or the address of one of these two. */
struct loop {
	struct worker *worker;
	int epoll_fd;
	unsigned conns;
	struct conn *table[CONNS_MAX]; /* to close them all at the end; a connection's fd is its index */
};

static int watch(const struct loop *l, int fd, uint32_t events, void *data)
{
	struct epoll_event e = {.events = events, .data.ptr = data};
	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static void drop(struct loop *l, struct conn *c)
{
	l->table[conn_fd(c)] = NULL;
	l->conns--;
	conn_free(c); /* closing takes it out of the epoll, too */
}

static void run(struct loop *l, struct conn *c)
{
	struct epoll_event e = {.data.ptr = c, .events = conn_run(c, l->worker->service)};
	if (!e.events || epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, conn_fd(c), &e) < 0)
		drop(l, c);
}

static void accept_one(struct loop *l)
{
	int fd = accept4(l->worker->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return; /* the client is gone already */

	struct conn *c = fd < (int)CONNS_MAX ? conn_new(fd) : NULL;
	if (!c) {
		DC_LOG(DC_WARN, "connection %d refused, at most %d fit", fd, (int)CONNS_MAX);
		close(fd);
		return;
	}
	l->table[fd] = c;
	l->conns++;
	DC_INSTANT("http.accept", "fd", fd, "conns", l->conns);
	if (watch(l, fd, EPOLLIN, c) < 0)
		drop(l, c);
}

/* Return: false when it is time to go. */
static bool turn(struct loop *l)
{
	struct epoll_event ready[READY_MAX];
	int n = epoll_wait(l->epoll_fd, ready, READY_MAX, -1);

	DC_COUNTER("queue.depth", n);
	for (int i = 0; i < n; i++) {
		void *data = ready[i].data.ptr;
		if (data == &l->worker->stop_fd)
			return false;
		if (data == &l->worker->listen_fd)
			accept_one(l);
		else
			run(l, data);
	}
	return true;
}

static void *worker_main(void *arg)
{
	struct loop l = {.worker = arg};
	char name[16];
	snprintf(name, sizeof(name), "worker-%u", l.worker->number);
	dc_thread_name(name);

	l.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	bool go = l.epoll_fd >= 0 && !watch(&l, l.worker->stop_fd, EPOLLIN, &l.worker->stop_fd) &&
		  !watch(&l, l.worker->listen_fd, EPOLLIN, &l.worker->listen_fd);
	while (go)
		go = turn(&l);

	for (unsigned i = 0; i < CONNS_MAX; i++)
		conn_free(l.table[i]);
	if (l.epoll_fd >= 0)
		close(l.epoll_fd);
	return NULL;
}

int worker_start(struct worker *w)
{
	return -pthread_create(&w->thread, NULL, worker_main, w);
}

void worker_join(struct worker *w)
{
	pthread_join(w->thread, NULL);
	close(w->listen_fd);
}
