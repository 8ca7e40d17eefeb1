/* SPDX-License-Identifier: MIT */
/*
 * A list of checks, each Ok, Degraded or Failed, with what was found and how to fix it: doctor and selftest.
 *
 *     struct checks c;
 *     checks_init(&c, json);
 *     checks_add(&c, "io_uring", CHECK_DEGRADED, "captures are written by pwrite, more slowly", "sysctl ...",
 *                "refused: %s", why);
 *     return checks_finish(&c);
 */
#pragma once

#include "tools/json.h"

enum check_state { CHECK_OK, CHECK_DEGRADED, CHECK_FAILED };

struct checks {
	struct json json;
	bool as_json;
	bool colour;
	enum check_state worst;
	unsigned counts[3];
};

void checks_init(struct checks *c, bool as_json);

/*
 * @means: what it costs, @fix: what to type or to do; both NULL when the state is CHECK_OK. @found: printf format.
 */
void checks_add(struct checks *c, const char *name, enum check_state state, const char *means,
		const char *fix, const char *found, ...) __attribute__((format(printf, 6, 7)));

/* Prints the verdict. Return: EXIT_OK, EXIT_FAILED when a check failed. */
int checks_finish(struct checks *c);
