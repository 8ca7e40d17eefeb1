/* SPDX-License-Identifier: MIT */
/*
 * Any answer of a child that a hostile file has taken over. The input is a run of messages (type:1, length:2, bytes), which
 * get the checksums they need here; the first byte says which child it is. Held to: no crash and no byte out of bounds
 * (the sanitizer), and whatever is kept makes sense: frames in mappings, stacks of frames, chains of names that end.
 */
#include "persist/stacks/resolve.c"
#include "persist/stacks/resolve_stacks.c"

#include "persist/block.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void add(struct dc_resolve_child *o, const void *bytes, size_t size)
{
	o->bytes = realloc(o->bytes, o->size + size + 8);
	must(o->bytes != NULL);
	memcpy(o->bytes + o->size, bytes, size);
	o->size += size;
}

/* The messages as they would come through the pipe. */
static struct dc_resolve_child answer_of(const uint8_t *data, size_t size)
{
	struct dc_resolve_child o = {0};

	add(&o, "", 0);
	while (size >= 3) {
		size_t bytes = data[1] | (size_t)data[2] << 8;
		struct dc_message m = {.type = data[0]};

		bytes = bytes < size - 3 ? bytes : size - 3;
		m.bytes = bytes;
		m.xxh3 = dc_checksum(data + 3, bytes);
		add(&o, &m, sizeof m);
		add(&o, data + 3, bytes);
		add(&o, (const uint8_t[8]){0}, -bytes & 7);
		data += 3 + bytes;
		size -= 3 + bytes;
	}
	return o;
}

static int look(void *arg, uint16_t type, const void *payload, size_t bytes)
{
	const struct dc_stacks_block *head = payload;
	const uint32_t *at = (const void *)(head + 1);
	const struct dc_resolver *r = arg;

	must(bytes <= DC_BLOCK_PLAIN_MAX);
	for (uint32_t i = 0; type == DC_BLOCK_STACKS && i < head->count; i++, at += 1 + at[0])
		for (uint32_t k = 1; k <= at[0]; k++)
			must(at[k] && at[k] <= r->frames.count);
	return 0;
}

static void note_stack(void *arg, uint32_t sample, uint32_t stack, bool truncated)
{
	uint32_t *stack_of = arg;

	(void)truncated;
	must(sample < 2 && stack);
	stack_of[sample] = stack;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct dc_map_entry maps[3] = {{.start = 1, .end = 2}, {.start = 3, .end = 4}, {.start = 5, .end = 6}};
	static const char *const paths[3] = {"/a", "/b", "/a"};
	struct dc_symbol chain[DC_SYMBOLS_CHAIN_MAX];
	struct dc_resolve_totals totals;
	uint32_t stack_of[2] = {0}, number;
	const struct dc_sample_source source = {.put = note_stack, .arg = stack_of, .count = 2};
	struct dc_resolver *r;

	if (size < 1)
		return 0;
	must(dc_resolver_new(maps, paths, 3, &(struct dc_resolve_options){0}, &r) == 0);
	struct dc_resolve_child o = answer_of(data + 1, size - 1);
	if (data[0] & 1) {
		struct merging m = {.r = r, .source = &source, .sample_count = 2};

		merge(&m, &o);
		merging_cleanup(&m);
	} else {
		for (uint32_t i = 0; i < 4; i++)
			must(dc_resolver_frame(r, &(struct dc_frame){.address = i, .map = i, .flags = i & 1 ? DC_FRAME_FILE : 0}, &number) == 0);
		struct naming_run run = {.r = r, .map = UINT32_MAX};

		r->name_first = 1;
		r->name_of = calloc(5, sizeof *r->name_of);
		r->offset_of = calloc(5, sizeof *r->offset_of);
		r->placed = calloc(5, 1);
		take_naming(&run, &o);
		for (uint32_t i = 1; i <= 4; i++) {
			must(r->name_of[i] <= r->name_count);
			for (unsigned k = chain_of(r, r->name_of[i], chain); k--;)
				must(strlen(chain[k].function) + strlen(chain[k].file) < size);
		}
	}
	must(stack_of[0] <= r->stacks.count && stack_of[1] <= r->stacks.count);
	must(dc_resolver_blocks(r, ~0u, look, r) == 0);
	dc_resolver_totals(r, &totals);
	must(totals.named <= totals.frame_count);
	dc_resolve_child_fini(&o);
	dc_resolver_free(r);
	return 0;
}
