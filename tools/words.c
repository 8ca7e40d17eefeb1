/* SPDX-License-Identifier: MIT */
#include "tools/words.h"

#include <stdio.h>
#include <string.h>

#include "ipc/event.h"

#define WORD(table, i) ((i) < sizeof(table) / sizeof((table)[0]) && (table)[i] ? (table)[i] : "unknown")

const char *word_kind(uint8_t kind)
{
	static const char *const words[] = {
		[DC_KIND_BEGIN] = "begin",
		[DC_KIND_END] = "end",
		[DC_KIND_END_TO] = "end",
		[DC_KIND_INSTANT] = "instant",
		[DC_KIND_COUNTER] = "counter",
		[DC_KIND_LOG] = "log",
		[DC_KIND_ASYNC_BEGIN] = "async_begin",
		[DC_KIND_ASYNC_END] = "async_end",
		[DC_KIND_FLOW_OUT] = "flow_out",
		[DC_KIND_FLOW_IN] = "flow_in",
		[DC_KIND_CONTEXT] = "context",
		[DC_KIND_STACK] = "stack",
		[DC_KIND_TRIGGER] = "trigger",
		[DC_KIND_OPEN] = "open",
		[DC_KIND_THREAD] = "thread",
	};

	return WORD(words, kind);
}

const char *word_level(uint8_t level)
{
	static const char *const words[] = {
		[DC_LEVEL_TRACE] = "trace", [DC_LEVEL_DEBUG] = "debug", [DC_LEVEL_INFO] = "info",
		[DC_LEVEL_WARN] = "warn",   [DC_LEVEL_ERROR] = "error", [DC_LEVEL_FATAL] = "fatal",
	};

	return WORD(words, level);
}

const char *word_cause(enum dc_reason reason)
{
	static const char *const words[] = {
		[DC_REASON_API] = "api",        [DC_REASON_COMMAND] = "command",
		[DC_REASON_SIGNAL] = "signal",  [DC_REASON_DEATH] = "death",
		[DC_REASON_EXIT] = "exit",      [DC_REASON_RECOVER] = "recover",
		[DC_REASON_SPAN] = "slow_span", [DC_REASON_RULE] = "rule",
	};

	return WORD(words, (unsigned)reason);
}

const char *word_clock(uint32_t clock)
{
	static const char *const words[] = {
		[DC_CLOCK_MONOTONIC] = "monotonic",
		[DC_CLOCK_TSC] = "tsc",
		[DC_CLOCK_CNTVCT] = "cntvct",
	};

	return WORD(words, clock);
}

const char *word_unit(enum dc_unit unit)
{
	static const char *const words[] = {
		[DC_UNIT_NONE] = "",           [DC_UNIT_NUMBER] = "number",
		[DC_UNIT_NS] = "ns",           [DC_UNIT_BYTES] = "bytes",
		[DC_UNIT_PERCENT] = "percent", [DC_UNIT_PER_SECOND] = "per_second",
		[DC_UNIT_SIGNAL] = "signal",   [DC_UNIT_BYTES_PER_SECOND] = "bytes_per_second",
		[DC_UNIT_DESCRIPTORS] = "descriptors", [DC_UNIT_THREADS] = "threads",
		[DC_UNIT_TIMES] = "times",     [DC_UNIT_EXIT_CODE] = "exit_code",
	};

	return WORD(words, (unsigned)unit);
}

void words_because(const struct dc_incident *incident, char text[static 96])
{
	static const char *const words[] = {
		[DC_REASON_API] = "the program asked for it (DC_TRIGGER)",
		[DC_REASON_COMMAND] = "somebody asked for it with 'dashcam trigger'",
		[DC_REASON_SIGNAL] = "the watcher got SIGUSR1",
		[DC_REASON_DEATH] = "the program died",
		[DC_REASON_EXIT] = "the program ended (--on-exit)",
		[DC_REASON_RECOVER] = "its ring was found without its program (dashcam recover)",
		[DC_REASON_SPAN] = "a span took longer than its threshold",
		[DC_REASON_RULE] = "a rule came true",
	};
	char signal[32];

	if (incident->reason == DC_REASON_DEATH && incident->signal)
		snprintf(text, 96, "the program died by %s", word_signal(incident->signal, signal));
	else
		snprintf(text, 96, "%s", WORD(words, (unsigned)incident->reason));
}

const char *word_signal(uint32_t signal, char text[static 32])
{
	const char *name = signal < 65 ? sigabbrev_np((int)signal) : NULL;

	if (name)
		snprintf(text, 32, "SIG%s", name);
	else
		snprintf(text, 32, "signal %u", signal);
	return text;
}
