/* SPDX-License-Identifier: MIT */
#include "tools/stores.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/places.h"

#define HOST_STORE "/var/lib/dashcam"

static bool is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_number(const char *s)
{
	return *s && s[strspn(s, "0123456789")] == '\0';
}

/* DIR/<uid>/ for each that we may see. */
static int each_below(const char *dir, int (*each)(void *arg, const char *dir), void *arg)
{
	DIR *d = opendir(dir);
	char child[PATH_MAX];
	struct dirent *entry;
	int r = 0;

	while (d && r == 0 && (entry = readdir(d)))
		if (is_number(entry->d_name) &&
		    snprintf(child, sizeof(child), "%s/%s", dir, entry->d_name) < (int)sizeof(child) &&
		    is_dir(child))
			r = each(arg, child);
	if (d)
		closedir(d);
	return r;
}

int stores_each(const char *given, int (*each)(void *arg, const char *dir), void *arg)
{
	char place[PLACE_BYTES], own[64];
	int r = 0;

	if (given) {
		r = each(arg, given);
		return r ? r : each_below(given, each, arg);
	}
	if (geteuid() == 0)
		return each_below(HOST_STORE, each, arg);
	if (place_captures(place) == 0 && is_dir(place))
		r = each(arg, place);
	snprintf(own, sizeof(own), HOST_STORE "/%u", (unsigned)geteuid());
	return r || !is_dir(own) ? r : each(arg, own);
}

struct find {
	const char *name;
	char *path;
};

static int find_in(void *arg, const char *dir)
{
	static const char *const endings[] = {"", ".dcap"};
	struct find *f = arg;

	for (unsigned i = 0; i < 2; i++)
		if (snprintf(f->path, PATH_MAX, "%s/%s%s", dir, f->name, endings[i]) < PATH_MAX &&
		    access(f->path, F_OK) == 0)
			return 1;
	return 0;
}

int stores_find(const char *given, const char *name, char ret_path[static PATH_MAX])
{
	struct find f = {.name = name, .path = ret_path};

	if (!strchr(name, '/') && *name && access(name, F_OK) < 0 && stores_each(given, find_in, &f) == 1)
		return 0;
	snprintf(ret_path, PATH_MAX, "%s", name);
	return access(name, F_OK) == 0 ? 0 : -errno;
}
