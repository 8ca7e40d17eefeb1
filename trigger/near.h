/* SPDX-License-Identifier: MIT */
/* "Did you mean": which of some names somebody may have meant. */
#pragma once

#include <stdbool.h>

/* Is @name nearer to @word than what gave *@best, and near enough to be worth saying? Then *@best is how near; start at 99. */
bool dc_near(const char *word, const char *name, unsigned *best);
