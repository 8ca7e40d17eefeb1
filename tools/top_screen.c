/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/now.h"
#include "tools/command.h"
#include "tools/top.h"

#define ENTER "\033[?1049h\033[?25l\033[?7l" /* the other screen, no cursor; what is too long ends at the edge */
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static volatile sig_atomic_t ending;

static void on_signal(int number)
{
	if (number != SIGWINCH)
		ending = number;
}

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};

/* Delivered only while ppoll() waits, so none comes between a look at @ending and the wait. */
static void take_signals(sigset_t *ret_waiting)
{
	const struct sigaction action = {.sa_handler = on_signal};
	sigset_t blocked;

	sigemptyset(&blocked);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		sigaddset(&blocked, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &blocked, ret_waiting);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigdelset(ret_waiting, signals[i]);
}

/* Keys at once, unseen; no stop by ^Z on the other screen. */
static void take_terminal(struct termios *ret_before)
{
	struct termios raw;

	tcgetattr(STDIN_FILENO, ret_before);
	raw = *ret_before;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VSUSP] = _POSIX_VDISABLE;
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	fputs(ENTER, stdout);
}

static void give_terminal(const struct termios *before)
{
	fputs(LEAVE, stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSANOW, before);
}

static void draw(const struct top_rows *t, const char *sort)
{
	struct winsize size = {0};

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row)
		size = (struct winsize){.ws_col = 80, .ws_row = 24};
	fputs("\033[H", stdout);
	if (t->watchers)
		top_page(stdout, t, sort, size.ws_col, size.ws_row);
	else
		fprintf(stdout, "%s\033[K", t->why);
	fputs("\033[J", stdout);
	fflush(stdout);
}

/* A key, or -1 when the time is up or a signal came. */
static int key_until(int64_t until_ns, const sigset_t *waiting)
{
	const int64_t left = until_ns - dc_now_ns();
	const struct timespec t = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	unsigned char key;

	if (left <= 0 || ppoll(&in, 1, &t, waiting) <= 0)
		return -1;
	if (read(STDIN_FILENO, &key, 1) != 1) {
		ending = SIGHUP; /* the terminal is gone */
		return -1;
	}
	return key;
}

static void top_loop(const struct ring_filter *filter, const char *sort, int64_t interval_ns, const sigset_t *waiting)
{
	struct top_rows rows = {0};

	while (!ending) {
		const int64_t until = dc_now_ns() + interval_ns;
		int key;

		top_rows_cleanup(&rows);
		top_load(filter, sort, &rows);
		draw(&rows, sort);
		do {
			key = key_until(until, waiting);
			if (key == 'q' || key == 'Q')
				ending = SIGINT;
			if (key < 0 && !ending && dc_now_ns() < until)
				draw(&rows, sort); /* another size */
		} while (!ending && !top_sort_key(key) && dc_now_ns() < until);
		sort = key > 0 && top_sort_key(key) ? top_sort_key(key) : sort;
	}
	top_rows_cleanup(&rows);
}

int top_screen(const struct ring_filter *filter, const char *sort, int64_t interval_ns)
{
	struct termios before;
	sigset_t waiting;

	take_signals(&waiting);
	take_terminal(&before);
	top_loop(filter, sort, interval_ns, &waiting);
	give_terminal(&before);
	return ending == SIGTERM || ending == SIGHUP || ending == SIGQUIT ? 128 + ending : EXIT_OK;
}
