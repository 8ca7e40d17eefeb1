/* SPDX-License-Identifier: MIT */
/*
 * Command lines without their secrets: what a capture keeps of /proc/PID/cmdline.
 *
 * Masked with "***" are values whose name speaks of a secret (--password=x, --api-token x, DB_PASSWORD=x,
 * "X-Api-Key: x"), the password of a URL or of curl's -u, what follows "Bearer" or "Basic", and words that
 * look like generated tokens. Names stay, so a reader still sees which options were given. When in doubt it
 * masks: a lost word costs less than a leaked one.
 */
#pragma once

#include <stddef.h>

/*
 * dc_mask() - a command line for people
 * @args, @bytes: arguments, each ended by NUL, as /proc/PID/cmdline has them (the last NUL may be missing)
 * @ret_text: arguments separated by spaces, cut to @size - 1 bytes; control characters become '?'
 */
void dc_mask(const char *args, size_t bytes, char *ret_text, size_t size);
