/* SPDX-License-Identifier: MIT */
#include "tools/demo.d/backend.h"

#include <arpa/inet.h>
#include <dashcam.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "tools/demo.d/fault.h"

#define JOURNAL_BYTES (8 << 20)
#define JOBS_MAX 65536u
#define JOB_TURNS 20000u
#define BATCH_MS 50
#define NAME_MAX_BYTES 64u
#define TRIES 3
#define TRY_MS 1000

struct backend {
	int journal_fd;
	_Atomic off_t journal_at;
	pthread_mutex_t lock;
	pthread_cond_t more;
	uint64_t head, tail; /* jobs are numbered; [tail, head) wait */
	uint32_t jobs[JOBS_MAX];
	bool stop;
	pthread_t indexer;
	pthread_t resolver;
	int resolver_fd;
	struct sockaddr_in resolver_address;
};

/* --- journal and index --- */

static uint32_t checksum(const char *bytes, size_t n)
{
	uint32_t h = 0;
	for (size_t i = 0; i < n; i++)
		h = h * 31 + (uint8_t)bytes[i];
	return h;
}

static void enqueue(struct backend *b, uint32_t what)
{
	pthread_mutex_lock(&b->lock);
	if (b->head - b->tail < JOBS_MAX) {
		b->jobs[b->head % JOBS_MAX] = what;
		DC_ASYNC_BEGIN("job", b->head);
		b->head++;
		DC_COUNTER("jobs.waiting", b->head - b->tail);
	}
	if (!fault_is(FAULT_LOST_WAKEUP))
		pthread_cond_signal(&b->more);
	pthread_mutex_unlock(&b->lock);
}

int backend_append(struct backend *b, const char *key, size_t key_length, const char *value, size_t length)
{
	const struct iovec parts[] = {{(void *)(uintptr_t)key, key_length}, {(void *)(uintptr_t)value, length}};
	const off_t bytes = (off_t)(key_length + length);
	const off_t at = atomic_fetch_add(&b->journal_at, bytes) % JOURNAL_BYTES;
	{
		DC_SPAN("journal.append", "bytes", (int64_t)bytes);
		if (fault_is(FAULT_SLOW_DISK))
			fault_sleep_ms(500);
		if (pwritev(b->journal_fd, parts, 2, at) != bytes)
			return errno ? -errno : -ENOSPC;
	}
	enqueue(b, checksum(value, length));
	return 0;
}

/* Half a second at a time, for housekeeping between jobs. By the wall clock: the mistake that FAULT_CLOCK_STEP is about. */
static void wait_for_jobs(struct backend *b)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 500000000;
	until.tv_sec += until.tv_nsec / 1000000000 + (fault_is(FAULT_CLOCK_STEP) ? 3600 : 0);
	until.tv_nsec %= 1000000000;
	if (fault_is(FAULT_CLOCK_STEP)) {
		while (!b->stop && pthread_cond_timedwait(&b->more, &b->lock, &until) != ETIMEDOUT)
			continue;
	} else if (!b->stop && (b->head == b->tail || fault_is(FAULT_LOST_WAKEUP))) {
		if (fault_is(FAULT_LOST_WAKEUP))
			pthread_cond_wait(&b->more, &b->lock);
		else
			pthread_cond_timedwait(&b->more, &b->lock, &until);
	}
	DC_INSTANT("index.flush", "jobs", b->head - b->tail);
}

static void index_one(uint32_t what)
{
	volatile uint32_t index = what;

	DC_SPAN("job.index", "what", what);
	for (unsigned i = 0; i < JOB_TURNS; i++)
		index = index * 31 + i;
	if (fault_is(FAULT_QUEUE_GROWTH))
		fault_sleep_ms(200);
}

/* What came while the batch before was gathered and indexed. Unlocked in between. */
static void index_batch(struct backend *b)
{
	const uint64_t end = b->head;

	while (b->tail < end) {
		const uint64_t job = b->tail;
		const uint32_t what = b->jobs[job % JOBS_MAX];

		pthread_mutex_unlock(&b->lock);
		index_one(what);
		DC_ASYNC_END("job", job);
		pthread_mutex_lock(&b->lock);
		b->tail++;
	}
	DC_COUNTER("jobs.waiting", b->head - b->tail);
	pthread_mutex_unlock(&b->lock);
	fault_sleep_ms(BATCH_MS);
	pthread_mutex_lock(&b->lock);
}

static void *indexer_main(void *arg)
{
	struct backend *b = arg;

	dc_thread_name("indexer");
	pthread_mutex_lock(&b->lock);
	while (!b->stop) {
		if (b->head == b->tail || fault_is(FAULT_LOST_WAKEUP) || fault_is(FAULT_CLOCK_STEP))
			wait_for_jobs(b);
		else
			index_batch(b);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* --- names --- */

static void *resolver_main(void *arg)
{
	struct backend *b = arg;

	dc_thread_name("resolver");
	for (;;) {
		char name[NAME_MAX_BYTES];
		struct sockaddr_in from;
		socklen_t length = sizeof(from);
		ssize_t n = recvfrom(b->resolver_fd, name, sizeof(name), 0, (struct sockaddr *)&from, &length);
		if (n <= 0)
			return NULL; /* shut down */
		if (fault_is(FAULT_DNS_WAIT))
			continue;
		uint32_t number = fault_is(FAULT_RETRY_STORM) ? 0 : checksum(name, (size_t)n) | 1;
		DC_INSTANT("resolver.answer", "number", number);
		sendto(b->resolver_fd, &number, sizeof(number), 0, (struct sockaddr *)&from, length);
	}
}

static int socket_of_thread(const struct backend *b)
{
	static _Thread_local int fd = -1;

	if (fd < 0)
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&b->resolver_address, sizeof(b->resolver_address)) < 0)
		return -errno;
	return fd < 0 ? -errno : fd;
}

/* Return: 1 and the answer, 0: none came in time, -errno. */
static int ask(int fd, const char *name, size_t length, uint32_t *ret_number)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (send(fd, name, length, 0) < 0)
		return -errno;
	if (poll(&p, 1, TRY_MS) <= 0)
		return 0;
	return recv(fd, ret_number, sizeof(*ret_number), 0) == sizeof(*ret_number) ? 1 : -errno;
}

static int resolve_once(const struct backend *b, const char *name, size_t length, unsigned *ret_number)
{
	uint32_t number;
	int fd = socket_of_thread(b), r = fd < 0 ? fd : 0;

	for (int i = 0; i < TRIES && r == 0; i++)
		r = ask(fd, name, length, &number);
	if (r <= 0)
		return r < 0 ? r : -ETIMEDOUT;
	*ret_number = number;
	return number ? 0 : -EHOSTUNREACH;
}

int backend_resolve(struct backend *b, const char *name, size_t length, unsigned *ret_number)
{
	DC_SPAN("peer.resolve", "bytes", length);
	int r = resolve_once(b, name, length < NAME_MAX_BYTES ? length : NAME_MAX_BYTES, ret_number);

	for (int i = 0; i < 50 && r == -EHOSTUNREACH; i++) {
		DC_LOG(DC_WARN, "peer refused, try %d", i);
		fault_sleep_ms(10);
		r = resolve_once(b, name, length < NAME_MAX_BYTES ? length : NAME_MAX_BYTES, ret_number);
	}
	return r;
}

/* --- begin and end --- */

static int open_resolver(struct backend *b)
{
	socklen_t length = sizeof(b->resolver_address);

	b->resolver_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	b->resolver_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (b->resolver_fd < 0 || bind(b->resolver_fd, (struct sockaddr *)&b->resolver_address, length) < 0 ||
	    getsockname(b->resolver_fd, (struct sockaddr *)&b->resolver_address, &length) < 0)
		return -errno;
	return 0;
}

int backend_new(const char *journal, struct backend **ret_backend)
{
	struct backend *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->more, NULL);
	b->resolver_fd = -1;
	b->journal_fd = open(journal, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = b->journal_fd < 0 ? -errno : open_resolver(b);
	if (r == 0)
		r = -pthread_create(&b->indexer, NULL, indexer_main, b);
	if (r == 0)
		r = -pthread_create(&b->resolver, NULL, resolver_main, b);
	if (r < 0) {
		backend_free(b);
		return r;
	}
	*ret_backend = b;
	return 0;
}

void backend_free(struct backend *b)
{
	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_signal(&b->more);
	pthread_mutex_unlock(&b->lock);
	if (b->indexer)
		pthread_join(b->indexer, NULL);
	if (b->resolver) {
		shutdown(b->resolver_fd, SHUT_RDWR);
		pthread_join(b->resolver, NULL);
	}
	if (b->resolver_fd >= 0)
		close(b->resolver_fd);
	if (b->journal_fd >= 0)
		close(b->journal_fd);
	pthread_cond_destroy(&b->more);
	pthread_mutex_destroy(&b->lock);
	free(b);
}
