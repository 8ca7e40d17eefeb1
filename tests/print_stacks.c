/* SPDX-License-Identifier: MIT */
/*
 * print_stacks FILE: the stacks of all threads in a settled capture as a debugger would list them, for e2e_stacks.
 *
 *     TID 1234
 *     0x00007f83 read        a physical frame, with the innermost function at its address
 *     - main                 a function into which the one before was inlined
 */
#include <inttypes.h>
#include <stdio.h>

#include "persist/stacks/stacks.h"

static void print_frame(const struct dc_stacks *s, const struct dc_frame *f)
{
	struct dc_name_view name = dc_stacks_name(s, f->name);

	printf("0x%016" PRIx64 " %s\n", f->address, name.function[0] ? name.function : "?");
	for (unsigned i = 0; name.outer && i < DC_STACKS_INLINE_MAX; i++) {
		name = dc_stacks_name(s, name.outer);
		printf("- %s\n", name.function);
	}
}

static int print_sample(void *arg, const struct dc_sample_view *sample)
{
	const struct dc_stacks *s = arg;
	const uint32_t *numbers;
	uint32_t count;

	if (!sample->thread)
		return 0;
	count = dc_stacks_frames(s, sample->head.stack, &numbers);
	printf("TID %u\n", sample->head.tid);
	for (uint32_t i = 0; i < count; i++)
		print_frame(s, dc_stacks_frame(s, numbers[i]));
	return 0;
}

int main(int argc, char **argv)
{
	const struct dc_cut all = {.everything = true};
	struct dc_capture *c;
	char why[160];

	if (argc != 2 || dc_capture_open(argv[1], &c, why) < 0)
		return 1;
	if (!dc_capture_settled(c))
		return 2;
	for (unsigned i = 0; i < dc_capture_process_count(c); i++) {
		struct dc_stacks *s;

		if (dc_stacks_open(c, i, &s) < 0 || dc_stacks_each(s, &all, print_sample, s) < 0)
			return 1;
		dc_stacks_close(s);
	}
	dc_capture_close(c);
	return 0;
}
