/* SPDX-License-Identifier: MIT */
#include "trigger/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ipc/cleanup.h"

#define SOCKET_MODE 0660

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

struct client {
	int fd; /* -1: free */
	int64_t until_ns;
	size_t got; /* of the request */
	char request[DC_HTTP_REQUEST_BYTES];
	char *reply; /* NULL: still asking */
	size_t reply_bytes, sent;
};

struct dc_http {
	int listen_fd;
	int epoll_fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* to be removed; empty: none */
	void (*page)(void *arg, FILE *out);
	void *arg;
	struct client clients[DC_HTTP_CLIENTS_MAX];
};

/* ---- where ---- */

static int refuse(const char *address, const char *found, char why[static DC_WHY_BYTES])
{
	snprintf(why, DC_WHY_BYTES, "'%.60s' %s, expected unix:PATH or 127.0.0.1:PORT", address, found);
	return -EINVAL;
}

static int parse_port(const char *text, uint16_t *ret_port)
{
	char *end;
	unsigned long port = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || port < 1 || port > 65535)
		return -EINVAL;
	*ret_port = htons((uint16_t)port);
	return 0;
}

static int parse_unix(const char *address, union address *ret_address, socklen_t *ret_bytes,
		      char why[static DC_WHY_BYTES])
{
	const char *path = address + strlen("unix:");

	ret_address->un.sun_family = AF_UNIX;
	if (!path[0])
		return refuse(address, "has no path", why);
	if (strlen(path) >= sizeof(ret_address->un.sun_path))
		return refuse(address, "is too long for a socket", why);
	strcpy(ret_address->un.sun_path, path);
	*ret_bytes = sizeof(ret_address->un);
	return 0;
}

static bool parse_host(const char *host, union address *ret_address, socklen_t *ret_bytes)
{
	if (inet_pton(AF_INET, host, &ret_address->in.sin_addr) == 1) {
		ret_address->in.sin_family = AF_INET;
		*ret_bytes = sizeof(ret_address->in);
		return ntohl(ret_address->in.sin_addr.s_addr) >> 24 == 127;
	}
	if (inet_pton(AF_INET6, host, &ret_address->in6.sin6_addr) == 1) {
		ret_address->in6.sin6_family = AF_INET6;
		*ret_bytes = sizeof(ret_address->in6);
		return IN6_IS_ADDR_LOOPBACK(&ret_address->in6.sin6_addr);
	}
	return false;
}

static int parse(const char *address, union address *ret_address, socklen_t *ret_bytes, char why[static DC_WHY_BYTES])
{
	const char *colon = strrchr(address, ':');
	char host[64] = "";
	size_t length;
	uint16_t port;

	*ret_address = (union address){0};
	if (strncmp(address, "unix:", 5) == 0)
		return parse_unix(address, ret_address, ret_bytes, why);
	if (!colon || parse_port(colon + 1, &port) < 0)
		return refuse(address, "has no port", why);
	length = (size_t)(colon - address);
	if (length > 2 && address[0] == '[' && address[length - 1] == ']') {
		address++;
		length -= 2;
	}
	if (length < sizeof(host))
		memcpy(host, address, length);
	if (!parse_host(host, ret_address, ret_bytes))
		return refuse(address, "is not of this host only", why);
	if (ret_address->any.sa_family == AF_INET)
		ret_address->in.sin_port = port;
	else
		ret_address->in6.sin6_port = port;
	return 0;
}

int dc_http_check(const char *address, char ret_why[static DC_WHY_BYTES])
{
	union address a;
	socklen_t bytes;

	return parse(address, &a, &bytes, ret_why);
}

/* Somebody listens there; a socket that was left behind refuses. */
static bool is_alive(const struct sockaddr_un *address)
{
	CLEANUP(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN);
}

/* A socket that somebody left there is removed, nothing else. */
static int bind_to(struct dc_http *h, const union address *a, socklen_t bytes)
{
	const bool local = a->any.sa_family == AF_UNIX;
	const int one = 1;
	struct stat st;
	mode_t before;
	int r;

	h->listen_fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (h->listen_fd < 0)
		return -errno;
	if (local && lstat(a->un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode) && !is_alive(&a->un))
		unlink(a->un.sun_path);
	if (!local)
		setsockopt(h->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	before = umask(~SOCKET_MODE & 0777);
	r = bind(h->listen_fd, &a->any, bytes) < 0 ? -errno : 0;
	umask(before);
	if (r == 0 && local)
		strcpy(h->path, a->un.sun_path);
	return r < 0 ? r : listen(h->listen_fd, DC_HTTP_CLIENTS_MAX) < 0 ? -errno : 0;
}

int dc_http_new(const char *address, void (*page)(void *arg, FILE *out), void *arg, struct dc_http **ret_http,
		char ret_why[static DC_WHY_BYTES])
{
	struct epoll_event listening = {.events = EPOLLIN, .data.u32 = DC_HTTP_CLIENTS_MAX};
	struct dc_http *h;
	union address a;
	socklen_t bytes;
	int r = parse(address, &a, &bytes, ret_why);

	if (r < 0)
		return r;
	h = calloc(1, sizeof(*h));
	if (!h) {
		snprintf(ret_why, DC_WHY_BYTES, "no memory");
		return -ENOMEM;
	}
	h->page = page;
	h->arg = arg;
	h->listen_fd = -1;
	for (uint32_t i = 0; i < DC_HTTP_CLIENTS_MAX; i++)
		h->clients[i].fd = -1;
	h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	r = h->epoll_fd < 0 ? -errno : bind_to(h, &a, bytes);
	if (r == 0 && epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->listen_fd, &listening) < 0)
		r = -errno;
	if (r < 0) {
		snprintf(ret_why, DC_WHY_BYTES, "cannot listen at '%.80s': %s", address, strerror(-r));
		dc_http_free(h);
		return r;
	}
	*ret_http = h;
	return 0;
}

/* ---- clients ---- */

static void forget(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd); /* epoll forgets it with the descriptor */
	free(c->reply);
	c->reply = NULL;
	c->fd = -1;
}

void dc_http_free(struct dc_http *h)
{
	if (!h)
		return;
	for (uint32_t i = 0; i < DC_HTTP_CLIENTS_MAX; i++)
		forget(&h->clients[i]);
	if (h->path[0])
		unlink(h->path);
	if (h->listen_fd >= 0)
		close(h->listen_fd);
	if (h->epoll_fd >= 0)
		close(h->epoll_fd);
	free(h);
}

int dc_http_fd(const struct dc_http *h)
{
	return h->epoll_fd;
}

/* One too many sees its connection closed. */
static void accept_one(struct dc_http *h, int64_t now_ns)
{
	CLEANUP(close_fd) int fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	uint32_t i = 0;
	struct epoll_event event = {.events = EPOLLIN};

	while (i < DC_HTTP_CLIENTS_MAX && h->clients[i].fd >= 0)
		i++;
	event.data.u32 = i;
	if (fd < 0 || i == DC_HTTP_CLIENTS_MAX || epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return;
	h->clients[i].until_ns = now_ns + DC_HTTP_TIMEOUT_NS;
	h->clients[i].got = h->clients[i].sent = 0;
	h->clients[i].fd = TAKE_FD(fd);
}

static const char *status_of(const struct client *c)
{
	const char *path = memchr(c->request, ' ', c->got), *end = path ? strpbrk(path + 1, " ?\r\n") : NULL;

	if (!path || !end || *end == '\r' || *end == '\n')
		return "400 Bad Request";
	if (strncmp(c->request, "GET ", 4) != 0)
		return "405 Method Not Allowed";
	return end - path - 1 == 8 && strncmp(path + 1, "/metrics", 8) == 0 ? "200 OK" : "404 Not Found";
}

static void make_reply(struct dc_http *h, struct client *c, const char *status)
{
	const bool good = strncmp(status, "200", 3) == 0;
	CLEANUP(free) char *body = NULL;
	size_t body_bytes = 0;
	FILE *f = open_memstream(&body, &body_bytes);

	if (f && good)
		h->page(h->arg, f);
	else if (f)
		fprintf(f, "%s: this is GET /metrics only\n", status);
	if (!f || fclose(f) != 0)
		return;
	f = open_memstream(&c->reply, &c->reply_bytes);
	if (!f)
		return;
	fprintf(f,
		"HTTP/1.1 %s\r\nContent-Type: text/plain; %scharset=utf-8\r\nContent-Length: %zu\r\n%s"
		"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
		status, good ? "version=0.0.4; " : "", body_bytes,
		strncmp(status, "405", 3) == 0 ? "Allow: GET\r\n" : "");
	fwrite(body, 1, body_bytes, f);
	if (fclose(f) != 0) {
		free(c->reply);
		c->reply = NULL;
	}
}

static void send_some(struct dc_http *h, struct client *c, uint32_t index)
{
	struct epoll_event event = {.events = EPOLLOUT, .data.u32 = index};
	ssize_t n = send(c->fd, c->reply + c->sent, c->reply_bytes - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n > 0)
		c->sent += (size_t)n;
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		forget(c);
	else if (c->sent == c->reply_bytes) {
		shutdown(c->fd, SHUT_WR);
		while (recv(c->fd, c->request, sizeof(c->request), MSG_DONTWAIT) == sizeof(c->request))
			; /* what it sent too much is no reason to reset the connection */
		forget(c);
	} else if (epoll_ctl(h->epoll_fd, EPOLL_CTL_MOD, c->fd, &event) < 0)
		forget(c);
}

/* The whole head of the request, in as many pieces as it comes. */
static void receive_some(struct dc_http *h, struct client *c, uint32_t index)
{
	ssize_t n = recv(c->fd, c->request + c->got, sizeof(c->request) - 1 - c->got, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		forget(c);
		return;
	}
	c->got += (size_t)n;
	c->request[c->got] = '\0';
	if (strstr(c->request, "\r\n\r\n") || strstr(c->request, "\n\n"))
		make_reply(h, c, status_of(c));
	else if (c->got == sizeof(c->request) - 1 || memchr(c->request, '\0', c->got))
		make_reply(h, c, "400 Bad Request");
	else
		return;
	if (c->reply)
		send_some(h, c, index);
	else
		forget(c);
}

void dc_http_dispatch(struct dc_http *h, int64_t now_ns)
{
	struct epoll_event events[DC_HTTP_CLIENTS_MAX + 1];
	int n = epoll_wait(h->epoll_fd, events, DC_HTTP_CLIENTS_MAX + 1, 0);

	for (int i = 0; i < n; i++) {
		const uint32_t index = events[i].data.u32;

		if (index == DC_HTTP_CLIENTS_MAX)
			accept_one(h, now_ns);
		else if (h->clients[index].fd >= 0 && h->clients[index].reply)
			send_some(h, &h->clients[index], index);
		else if (h->clients[index].fd >= 0)
			receive_some(h, &h->clients[index], index);
	}
}

void dc_http_tick(struct dc_http *h, int64_t now_ns)
{
	for (uint32_t i = 0; i < DC_HTTP_CLIENTS_MAX; i++)
		if (h->clients[i].fd >= 0 && now_ns > h->clients[i].until_ns)
			forget(&h->clients[i]);
}
