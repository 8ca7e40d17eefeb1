/* SPDX-License-Identifier: MIT */
/* The part of `dashcam status` about rules: how often each came true, what budgets held back, what it waits for. */
#pragma once

#include "ipc/cleanup.h"
#include "tools/json.h"

struct status_rules;

/* Of the watcher of @dir, and of those of `dashcam run` below it. NULL: no memory. */
struct status_rules *status_rules_ask(const char *dir);
void status_rules_free(struct status_rules *s);
DC_DEFINE_CLEANUP(status_rules, struct status_rules *, status_rules_free)
void status_rules_text(const struct status_rules *s);
void status_rules_json(struct json *j, const struct status_rules *s); /* an array "rules" */
