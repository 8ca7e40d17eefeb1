/* SPDX-License-Identifier: MIT */
/* Where captures are kept when nobody says otherwise. */
#pragma once

#include <stddef.h>

#define PLACE_BYTES 512u

/*
 * place_captures() - /var/lib/dashcam for root (with a directory for each uid), else $XDG_STATE_HOME/dashcam, else
 * ~/.local/state/dashcam. Return: 0, -ENAMETOOLONG, -ENOENT: the user has no home.
 */
int place_captures(char ret_path[static PLACE_BYTES]);

/* The nearest directory of @path that exists: "/" at the farthest. */
void place_existing(const char *path, char ret_path[static PLACE_BYTES]);
