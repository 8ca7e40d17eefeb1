/* SPDX-License-Identifier: MIT */
/*
 * The evaluator of rules with made-up facts: one process, a clock that only the test moves, a unit of the ring is 1 ns.
 * The words are short, for they are what the tests are written in.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/event.h"
#include "trigger/rules/evaluate.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define W_EXIT(code) ((code) << 8)
#define TID 100u /* of thread 0 */

/* What the process records: its sites. */
#define HTTP 1
#define DB 2
#define MISS 3
#define DEPTH 4
#define ERROR 5
#define WARN 6
#define PARK 7
#define JOB 8 /* begins; and ends */
#define JOB_DONE 9
extern struct dc_site_info sites[JOB_DONE + 1];

/* What fired. */
extern struct dc_rule_firing fired[64];
extern char fired_names[64][32];
extern unsigned firings;
extern uint64_t untold; /* and was not told one by one */

extern struct dc_evaluate *evaluate;
extern struct dc_subject *subject; /* whom facts are told of */
extern int64_t now;

void add(struct dc_rules *rules, const char *name, const char *when);
/* From the beginning: these rules, or one; one process "server". */
void begin_with(const struct dc_rules *rules);
void begin(const char *when);
int evaluating_end(void **state);
/* Firings since it was last asked. */
unsigned since(void);
/* The end of a look, so much later. */
void look(int64_t ns);

/* Facts of this moment. */
struct dc_event of(uint8_t kind, uint16_t site, uint32_t thread);
void put(const struct dc_event *event);
void span_begin(uint16_t site, uint32_t thread, uint32_t depth);
void span_end(uint16_t site, uint32_t thread, uint32_t depth, int64_t ns);
void span(uint16_t site, int64_t ns); /* of thread 0, one that ends now */
void instant(uint16_t site, uint64_t value);
void counter(int64_t value, uint32_t thread);
void message(uint16_t site);
void lane(uint32_t thread, int64_t last_ns, uint32_t depth, uint16_t site, int64_t open_ns);

double uniform(void); /* 0 to 1, the same ones each time */
