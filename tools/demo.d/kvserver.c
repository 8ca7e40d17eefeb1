/* SPDX-License-Identifier: MIT */
/*
 * kvserver: a key-value server over HTTP, small but whole: the program that tools/demo records.
 *
 *     kvserver [--port N] [--workers N] [--fill N] [--slow-ms N] [--snapshot FILE] [--journal FILE] [--faults]
 *
 * Listens on 127.0.0.1 only and prints "listening on PORT" when it is ready (port 0 picks a free one).
 * SIGTERM and SIGINT end it. Read in this order: http.h, table.h, service.h, conn.h, worker.h. The only calls
 * of dashcam in all of it are the DC_ macros where something happens.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/demo.d/fault.h"
#include "tools/demo.d/worker.h"

#define WORKERS_MAX 64u

struct options {
	unsigned port;
	unsigned workers;
	unsigned fill;
	unsigned slow_ms;
	const char *snapshot;
	const char *journal;
};

static int parse_number(const char *text, unsigned long max, unsigned *ret_number)
{
	char *end;
	errno = 0;
	unsigned long n = strtoul(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || n > max)
		return -EINVAL;
	*ret_number = (unsigned)n;
	return 0;
}

static int parse_option(int c, struct options *o)
{
	switch (c) {
	case 'p':
		return parse_number(optarg, 65535, &o->port);
	case 'w':
		return parse_number(optarg, WORKERS_MAX, &o->workers) || !o->workers ? -EINVAL : 0;
	case 'f':
		return parse_number(optarg, 1000000, &o->fill);
	case 's':
		return parse_number(optarg, 3600000, &o->slow_ms);
	case 'o':
		o->snapshot = optarg;
		return 0;
	case 'j':
		o->journal = optarg;
		return 0;
	case 'F':
		fault_allow();
		return 0;
	default:
		return -EINVAL;
	}
}

static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{"port", required_argument, NULL, 'p'},     {"workers", required_argument, NULL, 'w'},
		{"fill", required_argument, NULL, 'f'},     {"slow-ms", required_argument, NULL, 's'},
		{"snapshot", required_argument, NULL, 'o'}, {"journal", required_argument, NULL, 'j'},
		{"faults", no_argument, NULL, 'F'},         {NULL, 0, NULL, 0},
	};

	for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
		if (parse_option(c, o) < 0) {
			fprintf(stderr,
				"kvserver: '%s' is not understood; "
				"options: --port N --workers 1..64 --fill N --slow-ms N --snapshot FILE --journal FILE --faults\n",
				argv[optind - 1]);
			return -EINVAL;
		}
	}
	return 0;
}

static int fill(struct table *t, unsigned count)
{
	char value[200];
	memset(value, 'v', sizeof(value));

	for (unsigned i = 0; i < count; i++) {
		char key[16];
		int n = snprintf(key, sizeof(key), "%u", i);
		int r = table_put(t, key, (size_t)n, value, sizeof(value));
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * One listening socket a worker, all on one port: the kernel deals the connections out evenly. (One socket in all
 * epolls gives nearly all of them to the worker that slept last.) *port 0 picks one. Return: the socket, -errno.
 */
static int listen_on(unsigned *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)*port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(a);
	int one = 1;

	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&a, length) < 0 || listen(fd, 1024) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &length) < 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	*port = ntohs(a.sin_port);
	return fd;
}

static int start(struct worker *w, unsigned *port)
{
	w->listen_fd = listen_on(port);
	if (w->listen_fd < 0)
		return w->listen_fd;

	int r = worker_start(w);
	if (r < 0)
		close(w->listen_fd);
	return r;
}

/* Runs the workers until a signal comes, which main() has blocked in all threads. */
static int serve(const struct options *o, const struct service *service, const sigset_t *stop)
{
	struct worker workers[WORKERS_MAX];
	unsigned started = 0, port = o->port;
	int r = 0, signal;

	int stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (stop_fd < 0)
		return -errno;
	while (started < o->workers && r == 0) {
		workers[started] = (struct worker){.number = started, .stop_fd = stop_fd, .service = service};
		r = start(&workers[started], &port);
		started += r == 0;
	}
	if (r == 0) {
		printf("listening on %u\n", port);
		fflush(stdout);
		sigwait(stop, &signal);
	}

	eventfd_write(stop_fd, 1);
	while (started)
		worker_join(&workers[--started]);
	close(stop_fd);
	return r;
}

static int run(const struct options *o, const sigset_t *stop)
{
	struct service service = {.snapshot = o->snapshot};

	int r = table_new(o->slow_ms, &service.table);
	if (r == 0)
		r = fill(service.table, o->fill);
	if (r == 0 && o->journal)
		r = backend_new(o->journal, &service.backend);
	if (r == 0)
		r = serve(o, &service, stop);
	backend_free(service.backend);
	table_free(service.table);
	return r;
}

int main(int argc, char **argv)
{
	struct options o = {.port = 0, .workers = 4, .slow_ms = 200};
	if (parse_options(argc, argv, &o) < 0)
		return 2;

	sigset_t stop;
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	pthread_sigmask(SIG_BLOCK, &stop, NULL);

	int r = run(&o, &stop);
	if (r < 0)
		fprintf(stderr, "kvserver: port %u on 127.0.0.1: %s\n", o.port, strerror(-r));
	return r < 0;
}
