/* SPDX-License-Identifier: MIT */
/*
 * kvclient: a paced load for kvserver, as its users would be: so many requests a second at random moments, of all routes.
 *
 *     kvclient --port N [--rate N] [--threads N] [--seconds N] [--swing N]
 *
 * --swing N: the rate swings between half and one and a half times, once in N seconds. Each thread has one connection and one
 * request under way, and makes the connection anew when it is lost or no answer came for 2 s. Prints one line at its end:
 * requests, failures, the slowest one in ms.
 */
#include <arpa/inet.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64u
#define ANSWER_S 2

struct options {
	unsigned port;
	unsigned rate;
	unsigned threads;
	unsigned seconds;
	unsigned swing;
};

struct client {
	const struct options *options;
	pthread_t thread;
	unsigned number;
	uint64_t random;
	int fd;
	uint64_t requests;
	uint64_t failures;
	double slowest_ms;
};

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double uniform(struct client *c)
{
	c->random = c->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return ((double)(c->random >> 11) + 0.5) / 9007199254740992.0;
}

static void sleep_until(double when)
{
	struct timespec t = {(time_t)when, (long)((when - floor(when)) * 1e9)};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int connect_to(unsigned port)
{
	const struct sockaddr_in a = {.sin_family = AF_INET,
				      .sin_port = htons((uint16_t)port),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct timeval patience = {.tv_sec = ANSWER_S};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Of twenty: twelve GET, five PUT, two peers, one statistic. */
static int request_make(struct client *c, char *bytes, size_t size)
{
	static const char value[] = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
	const unsigned key = (unsigned)(uniform(c) * 8192), which = (unsigned)(uniform(c) * 20);

	if (which == 0)
		return snprintf(bytes, size, "GET /stats HTTP/1.1\r\n\r\n");
	if (which <= 2)
		return snprintf(bytes, size, "GET /peer/host-%u HTTP/1.1\r\n\r\n", key % 64);
	if (which <= 7)
		return snprintf(bytes, size, "PUT /kv/%u HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s", key,
				sizeof(value) - 1, value);
	return snprintf(bytes, size, "GET /kv/%u HTTP/1.1\r\n\r\n", key);
}

static size_t answer_bytes(const char *bytes, size_t have)
{
	const char *end = memmem(bytes, have, "\r\n\r\n", 4), *length;

	if (!end)
		return SIZE_MAX;
	length = memmem(bytes, (size_t)(end - bytes), "Content-Length: ", 16);
	return (size_t)(end + 4 - bytes) + (length ? strtoul(length + 16, NULL, 10) : 0);
}

static int exchange(struct client *c)
{
	char bytes[20480];
	size_t have = 0;
	int n = request_make(c, bytes, sizeof(bytes));

	if (send(c->fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
		return -1;
	while (have < sizeof(bytes)) {
		ssize_t got = recv(c->fd, bytes + have, sizeof(bytes) - have, 0);
		if (got <= 0)
			return -1;
		have += (size_t)got;
		if (have >= answer_bytes(bytes, have))
			return 0;
	}
	return -1;
}

static void one_request(struct client *c)
{
	const double began = now_s();

	if (c->fd < 0)
		c->fd = connect_to(c->options->port);
	if (c->fd < 0 || exchange(c) < 0) {
		c->failures++;
		if (c->fd >= 0)
			close(c->fd);
		c->fd = -1;
	}
	c->requests++;
	c->slowest_ms = fmax(c->slowest_ms, (now_s() - began) * 1e3);
}

static void *client_main(void *arg)
{
	struct client *c = arg;
	const struct options *o = c->options;
	const double began = now_s(), end = began + o->seconds;
	double next = began;

	while (next < end) {
		double rate = (double)o->rate / o->threads;
		if (o->swing)
			rate *= 1 + 0.5 * sin(2 * M_PI * (next - began) / o->swing);
		next += -log(uniform(c)) / rate;
		if (now_s() - next > 1)
			next = now_s(); /* what could not be asked in time is not asked all at once */
		sleep_until(next);
		one_request(c);
	}
	return NULL;
}

static unsigned number(const char *text, unsigned least, unsigned most)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || end == text || n < least || n > most) {
		fprintf(stderr, "kvclient: '%s' is not a number from %u to %u\n", text, least, most);
		exit(2);
	}
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	static const struct option known[] = {
		{"port", required_argument, NULL, 'p'},    {"rate", required_argument, NULL, 'r'},
		{"threads", required_argument, NULL, 't'}, {"seconds", required_argument, NULL, 's'},
		{"swing", required_argument, NULL, 'w'},   {NULL, 0, NULL, 0},
	};
	struct options o = {.rate = 1000, .threads = 8, .seconds = 10};
	static struct client clients[THREADS_MAX];
	uint64_t requests = 0, failures = 0;
	double slowest = 0;

	for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
		unsigned *at = c == 'p' ? &o.port : c == 'r' ? &o.rate : c == 't' ? &o.threads : c == 's' ? &o.seconds : &o.swing;
		if (c == '?')
			return 2;
		*at = number(optarg, c == 'w' ? 0 : 1, c == 'p' ? 65535 : c == 't' ? THREADS_MAX : 1000000);
	}
	if (!o.port) {
		fprintf(stderr, "kvclient: which --port?\n");
		return 2;
	}
	for (unsigned i = 0; i < o.threads; i++) {
		clients[i] = (struct client){.options = &o, .number = i, .random = i * 7919u + 1, .fd = -1};
		if (pthread_create(&clients[i].thread, NULL, client_main, &clients[i]) != 0)
			return 1;
	}
	for (unsigned i = 0; i < o.threads; i++) {
		pthread_join(clients[i].thread, NULL);
		requests += clients[i].requests;
		failures += clients[i].failures;
		slowest = fmax(slowest, clients[i].slowest_ms);
	}
	printf("%llu requests, %llu failed, slowest %.1f ms\n", (unsigned long long)requests, (unsigned long long)failures, slowest);
	return 0;
}
