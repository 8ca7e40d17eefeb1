/* SPDX-License-Identifier: MIT */
/*
 * What being sampled costs a program: redis-server under redis-benchmark, one server, sampled and not sampled in turns.
 *
 *     bench_sample [--json] [--pairs N] [--ms N] [--hz N] [--stacks auto|fp|copy] [--scope host|process]
 *
 * A pair is two intervals, in random order, one with stacks at so many Hz and all context switches, one without; the ratio
 * of their requests a second is one value, and what is printed is the median with the interval that holds the true median in
 * 95 of 100 cases (order statistics). Every other pair is of two intervals without, which shows what this machine's noise is
 * alone. Beside it the same of requests per second of CPU that the server got: other load on the machine spoils that less.
 *
 * Bar: 1 % of the throughput.
 */
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "tests/bench.h"
#include "trigger/sampler.h"

#define PAIRS_MAX 1000
/* Debian's package redis-tools has the server under this name, and starts none by itself. */
#define SERVER "redis-check-rdb"

static pid_t server, client;
static char socket_path[64];
static int connection = -1;

static void end_all(void)
{
	if (client > 0 && kill(client, SIGKILL) == 0)
		waitpid(client, NULL, 0);
	if (server > 0 && kill(server, SIGKILL) == 0)
		waitpid(server, NULL, 0);
	unlink(socket_path);
}

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "bench_sample: %s\n", what);
	end_all();
	exit(1);
}

static pid_t start(const char *program, char *const *argv)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(1);
		execvp(program, argv);
		_exit(127);
	}
	return pid;
}

static void start_redis(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(socket_path, sizeof socket_path, "/tmp/bench_sample.%d.sock", (int)getpid());
	server = start(SERVER, (char *[]){"redis-server", "--port", "0", "--save", "", "--unixsocket", socket_path, NULL});
	memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
	for (int i = 0; i < 500; i++) {
		connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(connection, (struct sockaddr *)&address, sizeof address) == 0)
			break;
		close(connection);
		connection = -1;
		poll(NULL, 0, 10);
	}
	if (connection < 0)
		die("redis-server does not start");
	client = start("redis-benchmark", (char *[]){"redis-benchmark", "-s", socket_path, "-t", "get,set", "-c", "50", "-l", "-q", NULL});
	poll(NULL, 0, 1000);
}

/* Commands that the server has processed so far. */
static double commands(void)
{
	static const char ask[] = "INFO stats\r\n";
	char text[16384] = "";
	size_t used = 0;
	const char *at = NULL;

	if (write(connection, ask, sizeof ask - 1) != sizeof ask - 1)
		die("redis-server is gone");
	while (used < sizeof text - 1) {
		ssize_t n = read(connection, text + used, sizeof text - 1 - used);

		if (n <= 0)
			die("redis-server is gone");
		used += (size_t)n;
		text[used] = '\0';
		at = strstr(text, "total_commands_processed:");
		/* the reply says how long it is: $N\r\n...\r\n */
		if (text[0] == '$' && strchr(text, '\n') &&
		    used >= strtoul(text + 1, NULL, 10) + (size_t)(strchr(text, '\n') + 1 - text) + 2)
			break;
	}
	if (!at)
		die("redis-server does not say how many commands it processed");
	return strtod(strchr(at, ':') + 1, NULL);
}

static double server_cpu_ns(void)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(server, &clock) || clock_gettime(clock, &t))
		die("redis-server is gone");
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct rate {
	double per_s;
	double per_cpu_s;
};

/* The loop of a watcher meanwhile: its ticks are part of the price. */
static struct rate interval(const struct dc_sampler_config *config, bool sampled, int ms)
{
	struct dc_sampler *s = NULL;
	double start_ns, until, done, cpu;

	if (sampled && (dc_sampler_new(config, &s) < 0 || dc_sampler_add(s, (uint32_t)server) < 0))
		die("the server cannot be sampled");
	for (int i = 0; i < 3; i++) { /* until it is tuned to how often the server switches */
		poll(NULL, 0, 200);
		if (s)
			dc_sampler_tick(s);
	}
	start_ns = bench_now_ns();
	cpu = server_cpu_ns();
	done = commands();
	for (until = start_ns + ms * 1e6; bench_now_ns() < until;) {
		poll(NULL, 0, ms < 250 ? ms : 250);
		if (s)
			dc_sampler_tick(s);
	}
	done = commands() - done;
	cpu = server_cpu_ns() - cpu;
	until = bench_now_ns();
	dc_sampler_free(s);
	return (struct rate){done / (until - start_ns) * 1e9, done / cpu * 1e9};
}

struct series {
	double ratio[PAIRS_MAX];
	double cpu_ratio[PAIRS_MAX];
	size_t count;
};

static void pair(const struct dc_sampler_config *config, bool sampled, int ms, struct series *series)
{
	const bool first = rand() & 1;
	const struct rate a = interval(config, sampled && first, ms), b = interval(config, sampled && !first, ms);
	const struct rate with = first ? a : b, without = first ? b : a;

	series->ratio[series->count] = with.per_s / without.per_s;
	series->cpu_ratio[series->count++] = with.per_cpu_s / without.per_cpu_s;
}

/* Per cent lost: median, and the ranks around it that hold the true one in 95 of 100 cases. */
static void figures(struct bench_report *r, const char *key, double *ratios, size_t n, const char *what)
{
	const double half = 0.98 * sqrt((double)n) / (double)(n - 1);
	char name[64];

	bench_figure(r, key, (1 - bench_quantile(ratios, n, 0.5)) * 100, "%", what);
	snprintf(name, sizeof name, "%s_low", key);
	bench_figure(r, name, (1 - bench_quantile(ratios, n, fmin(0.5 + half, 1))) * 100, "%", "95 % of the time the true median");
	snprintf(name, sizeof name, "%s_high", key);
	bench_figure(r, name, (1 - bench_quantile(ratios, n, fmax(0.5 - half, 0))) * 100, "%", "... lies between these two");
}

static bool installed(const char *program)
{
	char command[64];

	snprintf(command, sizeof command, "command -v %s >/dev/null", program);
	return system(command) == 0;
}

static long option(int argc, char **argv, const char *name, long fallback)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0 && atol(argv[i + 1]) > 0)
			return atol(argv[i + 1]);
	return fallback;
}

static enum dc_sample_stacks stacks_option(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], "--stacks") == 0)
			return strcmp(argv[i + 1], "fp") == 0 ? DC_STACKS_FRAME_POINTERS : DC_STACKS_COPY;
	return DC_STACKS_AUTO;
}

static bool host_option(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], "--scope") == 0)
			return strcmp(argv[i + 1], "host") == 0;
	return true;
}

int main(int argc, char **argv)
{
	const struct dc_sampler_config config = {.hz = (uint32_t)option(argc, argv, "--hz", 49),
						 .stacks = stacks_option(argc, argv),
						 .host = host_option(argc, argv)};
	const long asked = option(argc, argv, "--pairs", 40), pairs = asked < PAIRS_MAX ? asked : PAIRS_MAX;
	const int ms = (int)option(argc, argv, "--ms", 700);
	static struct series sampled, noise;
	struct dc_sample_mode mode;
	struct bench_report r;
	struct dc_sampler *s;

	if (!installed(SERVER) || !installed("redis-benchmark")) {
		fprintf(stderr, "bench_sample: needs redis: apt-get install redis-tools\n");
		return 77;
	}
	if (dc_sampler_new(&config, &s) < 0)
		die("no memory");
	start_redis();
	if (dc_sampler_fd(s) < 0 || dc_sampler_add(s, (uint32_t)server) < 0) {
		dc_sampler_mode(s, (uint32_t)server, &mode);
		fprintf(stderr, "bench_sample: sampling is refused here: %s\n", mode.why);
		end_all();
		return 77;
	}
	dc_sampler_mode(s, (uint32_t)server, &mode);
	dc_sampler_free(s);
	srand(1);
	for (long i = 0; i < pairs; i++) {
		pair(&config, true, ms, &sampled);
		pair(&config, false, ms, &noise);
	}
	bench_begin(&r, "bench_sample", argc, argv);
	bench_figure(&r, "pairs", (double)pairs, "", "of intervals with and without, and as many without and without");
	bench_figure(&r, "hz", mode.hz, "Hz", "stacks, and all context switches");
	bench_figure(&r, "scope", mode.scope, "", "1: the host, 2: the process alone");
	bench_figure(&r, "copy_bytes", mode.copy_bytes, "bytes", "of the stack with each; 0: frame pointers");
	figures(&r, "cost_percent", sampled.ratio, sampled.count, "of the requests a second; bar 1");
	figures(&r, "noise_percent", noise.ratio, noise.count, "the same where neither was sampled");
	figures(&r, "cpu_cost_percent", sampled.cpu_ratio, sampled.count, "of the requests a second of the server's CPU time");
	figures(&r, "cpu_noise_percent", noise.cpu_ratio, noise.count, "the same where neither was sampled");
	bench_end(&r);
	end_all();
	return 0;
}
