/* SPDX-License-Identifier: MIT */
#include "trigger/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/cleanup.h"

static void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

ssize_t dc_proc_read(uint32_t pid, const char *file, char *ret_text, size_t size)
{
	CLEANUP(close_fd) int fd = -1;
	char path[320];
	size_t used = 0;

	snprintf(path, sizeof(path), "/proc/%u/%s", pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (used < size - 1) {
		ssize_t n = read(fd, ret_text + used, size - 1 - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		used += (size_t)n;
	}
	ret_text[used] = '\0';
	return (ssize_t)used;
}

/* The name in field 2 may hold spaces and parentheses; everything after the last ')' is plain. */
int dc_proc_stat(uint32_t pid, struct dc_proc_stat *ret_stat)
{
	char text[2048], *save = NULL, *at;
	struct dc_proc_stat st = {0};
	unsigned field = 3;
	ssize_t n = dc_proc_read(pid, "stat", text, sizeof(text));

	if (n < 0)
		return (int)n;
	at = strrchr(text, ')');
	if (!at)
		return -EBADMSG;
	for (char *word = strtok_r(at + 1, " \n", &save); word;
	     word = strtok_r(NULL, " \n", &save), field++) {
		if (field == 3)
			st.state = word[0];
		else if (field == 22)
			st.start_time = strtoull(word, NULL, 10);
		else if (field == 52)
			st.exit_status = (int)strtol(word, NULL, 10);
	}
	if (field <= 22)
		return -EBADMSG;
	*ret_stat = st;
	return 0;
}

/* The text after "@key:\t" in /proc/PID/status. */
static const char *status_line(const char *text, const char *key)
{
	size_t length = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, length) == 0 && line[length] == ':')
			return line + length + 1;
	}
	return NULL;
}

int dc_proc_uids(uint32_t pid, uint32_t ret_uids[static 4])
{
	char text[4096];
	const char *line;
	ssize_t n = dc_proc_read(pid, "status", text, sizeof(text));

	if (n < 0)
		return (int)n;
	line = status_line(text, "Uid");
	if (!line || sscanf(line, "%u %u %u %u", &ret_uids[0], &ret_uids[1], &ret_uids[2], &ret_uids[3]) != 4)
		return -EBADMSG;
	return 0;
}

/* Of /proc/PID/@file, a thread's status. Kernels from 5.9 on say how many there are. */
static int filters_of(uint32_t pid, const char *file)
{
	char text[4096];
	const char *mode, *count;
	ssize_t n = dc_proc_read(pid, file, text, sizeof(text));

	if (n < 0)
		return (int)n;
	mode = status_line(text, "Seccomp");
	count = status_line(text, "Seccomp_filters");
	if (mode && strtol(mode, NULL, 10) == 1)
		return INT_MAX;
	return count ? (int)strtol(count, NULL, 10) : 0;
}

#define THREADS_LOOKED_AT 64u

int dc_proc_filters(uint32_t pid)
{
	CLEANUP(closedir) DIR *d = NULL;
	const struct dirent *e;
	char path[300];
	int most = filters_of(pid, "status");

	snprintf(path, sizeof(path), "/proc/%u/task", pid);
	d = opendir(path);
	for (unsigned i = 0; d && most >= 0 && i < THREADS_LOOKED_AT && (e = readdir(d)); i++) {
		int n;

		snprintf(path, sizeof(path), "task/%.255s/status", e->d_name);
		n = e->d_name[0] == '.' ? 0 : filters_of(pid, path);
		most = n > most ? n : most;
	}
	return most;
}

int dc_proc_exe(uint32_t pid, char *ret_path, size_t size)
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%u/exe", pid);
	n = readlink(link, ret_path, size - 1);
	if (n < 0)
		return -errno;
	ret_path[n] = '\0';
	return 0;
}

static uint64_t namespace_of(uint32_t pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%u/ns/pid", pid);
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

uint64_t dc_proc_pid_namespace(void)
{
	return namespace_of((uint32_t)getpid());
}

/* NSpid lists the pid in every namespace down to the process's own, which is the last. */
static bool innermost_pid_is(uint32_t pid, uint32_t ns_pid)
{
	char text[4096], *end;
	const char *line;
	unsigned long last = 0;

	if (dc_proc_read(pid, "status", text, sizeof(text)) < 0)
		return false;
	line = status_line(text, "NSpid");
	while (line && *line && *line != '\n') {
		unsigned long v = strtoul(line, &end, 10);

		if (end == line)
			break;
		last = v;
		line = end;
	}
	return last == ns_pid;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "xxxxxxxx-xxxx-..." to 16 bytes, dashes skipped. */
void dc_proc_boot_id(uint8_t ret_id[static 16])
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	unsigned n = 0;
	int c;

	while (f && n < 32 && (c = fgetc(f)) != EOF) {
		int v = hex_digit((char)c);

		if (v < 0)
			continue;
		ret_id[n / 2] = (uint8_t)(ret_id[n / 2] << 4 | v);
		n++;
	}
	if (f)
		fclose(f);
}

uint32_t dc_proc_find(uint32_t ns_pid, uint64_t start_time, uint64_t pid_namespace)
{
	CLEANUP(closedir) DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		uint32_t pid = (uint32_t)strtoul(e->d_name, NULL, 10);
		struct dc_proc_stat st;
		uint64_t ns;

		if (pid == 0 || dc_proc_stat(pid, &st) < 0 || st.start_time != start_time)
			continue;
		ns = namespace_of(pid); /* 0 when we may not look */
		if ((ns == 0 || ns == pid_namespace) && innermost_pid_is(pid, ns_pid))
			return pid;
	}
	return 0;
}

bool dc_proc_maps(uint32_t pid, dev_t dev, ino_t ino)
{
	char path[64];
	CLEANUP(closedir) DIR *d = NULL;
	struct dirent *e;
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%u/map_files", pid);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (fstatat(dirfd(d), e->d_name, &st, 0) == 0 && st.st_dev == dev && st.st_ino == ino)
			return true;
	return false;
}
