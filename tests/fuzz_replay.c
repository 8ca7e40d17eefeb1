/* SPDX-License-Identifier: MIT */
/*
 * main() of a fuzzer where libFuzzer is not: every build (gcc, sanitizers) replays the kept corpus, so that what was
 * found once stays fixed. A corpus that is missing or empty fails: a replay of nothing claims nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "ipc/cleanup.h"

#define INPUT_MAX (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

DC_DEFINE_CLEANUP(dir, DIR *, closedir)

/* malloc of the exact size, so that ASan sees one byte too far. */
static int replay(const char *path)
{
	CLEANUP(fclose) FILE *f = fopen(path, "re");
	if (!f || fseek(f, 0, SEEK_END) < 0)
		return -errno;

	long size = ftell(f);
	if (size < 0 || (unsigned long)size > INPUT_MAX)
		return -EFBIG;
	rewind(f);

	CLEANUP(free) uint8_t *data = malloc(size ? (size_t)size : 1);
	if (!data || fread(data, 1, (size_t)size, f) != (size_t)size)
		return -EIO;
	return LLVMFuzzerTestOneInput(data, (size_t)size);
}

int main(int argc, char **argv)
{
	CLEANUP(dir) DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	if (!dir) {
		fprintf(stderr, "usage: %s CORPUS: '%s' cannot be read: %s\n", argv[0],
			argc > 1 ? argv[1] : "", strerror(errno));
		return 2;
	}

	unsigned inputs = 0;
	for (const struct dirent *e; (e = readdir(dir));) {
		if (e->d_name[0] == '.')
			continue;

		char path[PATH_MAX];
		snprintf(path, sizeof(path), "%s/%s", argv[1], e->d_name);
		int r = replay(path);
		if (r < 0) {
			fprintf(stderr, "input '%s' cannot be replayed: %s\n", path, strerror(-r));
			return 1;
		}
		inputs++;
	}
	printf("replayed %u inputs of '%s'\n", inputs, argv[1]);
	return inputs ? 0 : 1;
}
