/* SPDX-License-Identifier: MIT */
/* System calls by name, with the arguments that say what a thread waits for. */
#pragma once

#include "persist/format.h"
#include "tools/text.h"

struct text syscall_name(int32_t number); /* "futex", "syscall 999" */
struct text syscall_text(const struct dc_thread_state *s); /* "futex(0x7f..., 128, 2)", as many arguments as it has */
