/* SPDX-License-Identifier: MIT */
/*
 * Every directory in which the user's captures may lie, and finding one by name: people see names in ls and
 * type them.
 *
 *   --store DIR      DIR, and DIR/<uid>/ below it, as a watcher of root makes them
 *   root             /var/lib/dashcam/<uid>/ of all
 *   anybody else     $XDG_STATE_HOME/dashcam or ~/.local/state/dashcam, and /var/lib/dashcam/<own uid>/
 */
#pragma once

#include <limits.h>

/* @each is given the path of each that exists; a non-zero return stops and is returned. */
int stores_each(const char *given, int (*each)(void *arg, const char *dir), void *arg);

/*
 * stores_find() - path of a capture
 * @name: a path (it has a slash, or is a file here), or the name of a capture in one of the stores, .dcap may be missing
 * Return: 0; -ENOENT, -EACCES ...: *@ret_path is @name itself, for the message.
 */
int stores_find(const char *given, const char *name, char ret_path[static PATH_MAX]);
