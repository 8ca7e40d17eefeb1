/* SPDX-License-Identifier: MIT */
/* One word per thing, the same in show, info, the exports and the JSON of all commands. */
#pragma once

#include <stdint.h>

#include "persist/incident.h"

const char *word_kind(uint8_t kind);           /* DC_KIND_*: "begin" */
const char *word_level(uint8_t level);         /* DC_LEVEL_*: "warn" */
const char *word_cause(enum dc_reason reason); /* "api" */
const char *word_clock(uint32_t clock);        /* DC_CLOCK_*: "tsc" */
const char *word_unit(enum dc_unit unit);      /* "ns"; "" for none */
/* Why it was saved, in a sentence without its beginning and end: "the program died by SIGSEGV". */
void words_because(const struct dc_incident *incident, char text[static 96]);
/* "SIGSEGV", or "signal 77" in @text where the system has no name for it. */
const char *word_signal(uint32_t signal, char text[static 32]);
