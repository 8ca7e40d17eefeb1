/* SPDX-License-Identifier: MIT */
/*
 * Whether a chain of frame pointers got to the outermost function. What unwinds knows where it ends; a chain ends where the next
 * word does not look like one, which in code without frame pointers is anywhere. So its last function has to be one that
 * calls main(), a thread's function, or the kernel's own beginning; where libc was stripped of these names, in libc.
 */
#include <string.h>

#include "persist/stacks/stacks.h"

static bool is_among(const char *function, const char *const *names, size_t count, bool begins)
{
	for (size_t i = 0; i < count; i++)
		if (begins ? strncmp(function, names[i], strlen(names[i])) == 0 : strcmp(function, names[i]) == 0)
			return true;
	return false;
}

#define AMONG(function, names, begins) is_among(function, names, sizeof(names) / sizeof(names)[0], begins)

static bool of_user(const char *function)
{
	static const char *const names[] = {"main",   "_start",   "_start_c", "start_thread", "start",           "clone",
					    "clone3", "__clone",  "__clone3", "thread_start", "runtime.goexit.abi0", "runtime.goexit",
					    "runtime.mstart.abi0"};
	static const char *const beginnings[] = {"__libc_start_"};

	return AMONG(function, names, false) || AMONG(function, beginnings, true);
}

static bool of_kernel(const char *function)
{
	static const char *const beginnings[] = {"ret_from_fork", "entry_", "asm_", "el0", "secondary_startup", "__secondary_switched"};

	return AMONG(function, beginnings, true);
}

static bool of_libc(const char *path)
{
	static const char *const beginnings[] = {"libc.so", "libc-2", "libpthread", "ld-musl-"};
	const char *slash = strrchr(path, '/');

	return AMONG(slash ? slash + 1 : path, beginnings, true);
}

bool dc_stacks_to_root(const struct dc_stacks *s, const struct dc_sample *sample)
{
	const uint32_t *numbers;
	const uint32_t n = dc_stacks_frames(s, sample->stack, &numbers);
	const struct dc_frame *last = n ? dc_stacks_frame(s, numbers[n - 1]) : NULL;
	struct dc_name_view name;

	if (!last || sample->flags & DC_SAMPLE_TRUNCATED)
		return false;
	if (!(sample->flags & DC_SAMPLE_WALKED))
		return true;
	name = dc_stacks_name(s, last->name);
	for (unsigned i = 0; name.outer && i < DC_STACKS_INLINE_MAX; i++)
		name = dc_stacks_name(s, name.outer);
	if (!*name.function)
		return of_libc(dc_stacks_map(s, last->map).path);
	return last->flags & DC_FRAME_KERNEL ? of_kernel(name.function) : of_user(name.function);
}
