/* SPDX-License-Identifier: MIT */
/*
 * The walk: each frame by its row (row.h), which is made once (rules.h); where nothing describes a frame, by what its
 * code and its frame pointer tell (code.h), if that looks right.
 */
#include "persist/stacks/unwind.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "persist/stacks/code.h"
#include "persist/stacks/rules.h"

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#else
#define MACHINE EM_AARCH64
#endif

#define SEARCH_WORDS 256u /* of the stack, for a return address */
#define SEARCH_FRAMES 2u /* behind a searched one that make it credible, without a root */

struct dc_unwinder {
	struct dc_row_table rows;
	uint32_t count;
	struct dc_place *places;
	struct dc_fde_index *indexes; /* one a place; used is that of the first place of each module */
	struct dc_unwound trial; /* where a search leads */
};

/* The registers of a walk, and where it is. */
struct walk {
	struct dc_unwinder *unwinder;
	struct dc_row_state state;
	struct dc_row_stack stack;
	struct dc_unwound *out;
	bool called; /* the program counter is a return address */
	bool trial; /* a caller that was searched for: each return address has to stand behind a call, */
	bool failed; /* one does not */
};

static const struct dc_place *place_of(const struct dc_unwinder *u, uint64_t address)
{
	uint32_t low = 0, high = u->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (u->places[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low && address < u->places[low - 1].end ? &u->places[low - 1] : NULL;
}

/* Trampolines may be described wrongly, or not. */
static void row_make(const struct dc_place *p, uint64_t pc, bool called, struct dc_row *ret_row)
{
	*ret_row = (struct dc_row){.kind = DC_ROW_NONE};
	if (dc_code_is_trampoline(p, pc))
		*ret_row = dc_code_row_signal();
	else if (p->module)
		dc_rules_row(p, pc - called, ret_row);
	if (ret_row->kind == DC_ROW_NONE && !called && dc_code_is_plt(p, pc))
		*ret_row = dc_code_row_bare();
}

/* A return address belongs to the call before it. NULL: nothing is mapped there. */
static const struct dc_row *row_at(struct dc_unwinder *u, uint64_t pc, bool called)
{
	uint64_t key = pc << 1 | called;
	const struct dc_row *known = dc_row_find(&u->rows, key);
	const struct dc_place *p;
	struct dc_row row;

	if (pc >> 63) /* the kernel's half; the key has no room for it */
		return NULL;
	if (known || !(p = place_of(u, pc - called)))
		return known;
	row_make(p, pc, called, &row);
	return dc_row_add(&u->rows, key, &row) == 0 ? dc_row_find(&u->rows, key) : NULL;
}

/* Whether a guess leads somewhere: up the stack, to where something was called from. */
static bool guess_holds(const struct walk *w, const struct dc_row_state *next, bool must_see_call)
{
	const struct dc_row_state *old = &w->state;
	uint64_t pc = dc_code_address(next->values[DC_REG_PC]);
	const struct dc_place *p = place_of(w->unwinder, pc);

	if (!next->known[DC_REG_PC] || !next->known[DC_REG_SP] || !p ||
	    next->values[DC_REG_SP] < old->values[DC_REG_SP] || next->values[DC_REG_SP] % 8)
		return false;
	return dc_place_code(p, pc - 1, 1) ? dc_code_is_behind_call(p, pc) : !must_see_call;
}

static bool guess_chain(struct walk *w)
{
	struct dc_row_state next = w->state;
	struct dc_row row = dc_code_row_chain();
	uint64_t old = w->state.values[DC_REG_FRAME];
	uint64_t *fp = &next.values[DC_REG_FRAME];

	if (!w->state.known[DC_REG_FRAME] || old < w->state.values[DC_REG_SP])
		return false;
	dc_row_apply(&row, &next, &w->stack);
	if (!guess_holds(w, &next, false) || (*fp != 0 && *fp <= old))
		return false;
	w->state = next;
	return true;
}

static bool guess_bare(struct walk *w, bool must_see_call)
{
	struct dc_row_state next = w->state;
	struct dc_row row = dc_code_row_bare();

	dc_row_apply(&row, &next, &w->stack);
	if (!guess_holds(w, &next, must_see_call))
		return false;
	w->state = next;
	return true;
}

static bool frame_walk(struct walk *w);

/*
 * Whether the call before a return address led to where we are: to this function, or to one that chooses among several and
 * jumps here. Stacks are full of return addresses of calls that are over, whole chains of them.
 */
static bool call_led_to(const struct dc_unwinder *u, uint64_t address, uint64_t pc)
{
	const struct dc_place *caller = place_of(u, address), *here = place_of(u, pc);
	uint64_t target;
	struct dc_fde fde;

	if (!here || !here->index || !caller || caller->module != here->module ||
	    !dc_code_call_target(caller, address, &target) || dc_fde_find(here->index, pc - here->bias, &fde) < 0)
		return false;
	return target - here->bias == fde.begin ||
	       dc_code_jumps_into(here, target, fde.begin + here->bias, fde.end + here->bias);
}

/*
 * Whether a word of the stack is the return address to go on from: in code that is described, behind a call, and all that
 * follows from it is so too, to the outermost frame or to where the copy ends.
 */
static bool search_holds(struct walk *w, uint64_t pc, uint64_t sp)
{
	struct dc_unwinder *u = w->unwinder;
	struct walk t = *w;

	if (pc >> 63 || !call_led_to(u, pc, w->state.values[DC_REG_PC]))
		return false;
	t.state.values[DC_REG_PC] = pc;
	t.state.values[DC_REG_SP] = sp;
	t.called = t.trial = true;
	t.failed = false;
	t.out = &u->trial;
	t.out->count = 0;
	t.out->to_root = false;
	while (t.out->count < DC_STACKS_DEPTH_MAX && frame_walk(&t))
		;
	w->stack.used = t.stack.used; /* a shorter copy might have led elsewhere */
	return !t.failed && (t.out->to_root || t.out->count > SEARCH_FRAMES);
}

/*
 * The last resort of an innermost frame: assembly whose frame is described by what lies below the stack pointer, where no
 * copy reaches (SHA-2 of OpenSSL). Registers stay as they are.
 */
static bool search(struct walk *w)
{
	uint64_t sp = w->state.values[DC_REG_SP], pc;

	if (w->called || w->trial)
		return false;
	for (unsigned i = 0; i < SEARCH_WORDS && dc_row_read(&w->stack, sp, &pc); i++) {
		sp += sizeof pc;
		if (search_holds(w, dc_code_address(pc), sp)) {
			w->state.values[DC_REG_PC] = pc;
			w->state.values[DC_REG_SP] = sp;
			return true;
		}
	}
	return false;
}

/* Code that nothing describes. A frame pointer of 0 is how the ABI marks the outermost frame. */
static bool guess(struct walk *w, bool outside)
{
	if (outside)
		return guess_bare(w, false) || guess_chain(w);
	if (guess_chain(w) || (!w->called && guess_bare(w, true)))
		return true;
	if (w->called && w->state.known[DC_REG_FRAME] && w->state.values[DC_REG_FRAME] == 0)
		w->out->to_root = true;
	return false;
}

/* Stacks grow downwards: callers lie above. Only a signal may have come from another stack. */
static bool arrived(struct walk *w, uint64_t old_sp, bool signal)
{
	struct dc_row_state *s = &w->state;
	bool moved = s->values[DC_REG_SP] > old_sp;

#if defined(__aarch64__)
	moved = moved || (!w->called && s->values[DC_REG_SP] == old_sp); /* a leaf keeps its return address in lr */
#endif
	if (!s->known[DC_REG_PC] || !s->known[DC_REG_SP])
		return false;
	s->values[DC_REG_PC] = dc_code_address(s->values[DC_REG_PC]);
	if (s->values[DC_REG_PC] == 0 && !signal) {
		w->out->to_root = true;
		return false;
	}
	w->called = !signal;
	w->failed = w->trial && !signal &&
		    !dc_code_is_behind_call(place_of(w->unwinder, s->values[DC_REG_PC]), s->values[DC_REG_PC]);
	return (signal || moved) && !w->failed;
}

static void frame_add(struct walk *w, uint64_t pc, uint8_t flags)
{
	w->out->addresses[w->out->count] = pc;
	w->out->flags[w->out->count++] = flags;
}

/* As its row says, if that is of use. */
static void frame_leave(struct walk *w, const struct dc_row *row)
{
	struct dc_row_state *s = &w->state;

	if (w->called || w->trial) {
		dc_row_apply(row, s, &w->stack);
		return;
	}
	struct dc_row_state old = *s;
	dc_row_apply(row, s, &w->stack);
	if (s->known[DC_REG_PC] && s->known[DC_REG_SP])
		return;
	struct dc_row_state lost = *s;
	*s = old;
	if (!search(w))
		*s = lost;
}

/* One frame noted, and left. Return: false: that was the last one. */
static bool frame_walk(struct walk *w)
{
	struct dc_unwinder *u = w->unwinder;
	uint64_t pc = w->state.values[DC_REG_PC], sp = w->state.values[DC_REG_SP];
	const struct dc_row *row = row_at(u, pc, w->called);

	if (!row && w->called)
		return false; /* no return address: what led here was wrong */
	bool signal = row && row->signal;
	frame_add(w, pc, signal ? DC_FRAME_SIGNAL : w->called ? DC_FRAME_CALL : 0);
	uint8_t kind = row ? row->kind : DC_ROW_NONE;
	if (kind == DC_ROW_STEP)
		frame_leave(w, row);
	else if (kind == DC_ROW_DIRECT)
		kind = dc_rules_step(place_of(u, pc - w->called), pc - w->called, &w->state, &w->stack);
	if (kind == DC_ROW_END)
		w->out->to_root = true;
	if (kind == DC_ROW_END || (kind == DC_ROW_NONE && !guess(w, !row)))
		return false;
	return arrived(w, sp, signal);
}

int dc_unwind(struct dc_unwinder *u, const uint64_t *regs, unsigned reg_count, const uint8_t *stack,
	      uint32_t stack_bytes, struct dc_unwound *ret_unwound)
{
	struct walk w;

	if (reg_count != DC_REGS)
		return -EINVAL;
	w.unwinder = u;
	w.stack = (struct dc_row_stack){.from = regs[DC_REG_SP], .bytes = stack, .size = stack_bytes};
	w.out = ret_unwound;
	w.called = w.trial = w.failed = false;
	memcpy(w.state.values, regs, DC_REGS * sizeof *regs);
	memset(w.state.known, true, DC_REGS);
	ret_unwound->count = 0;
	ret_unwound->to_root = false;
	while (ret_unwound->count < DC_STACKS_DEPTH_MAX && frame_walk(&w))
		;
	ret_unwound->stack_used = (uint32_t)w.stack.used;
	return 0;
}

static void place_init(struct dc_unwinder *u, uint32_t i, const struct dc_unwind_map *map)
{
	struct dc_place *p = &u->places[i];
	uint64_t vaddr;

	*p = (struct dc_place){.start = map->start, .end = map->end};
	if (!map->module || map->module->machine != MACHINE || !dc_module_vaddr(map->module, map->offset, &vaddr))
		return;
	p->module = map->module;
	p->bias = map->start - vaddr;
	for (uint32_t k = 0; k < i && !p->index; k++)
		if (u->places[k].module == p->module)
			p->index = u->places[k].index;
	if (!p->index) {
		p->index = &u->indexes[i];
		dc_fde_index_init(p->index, p->module);
	}
}

int dc_unwinder_new(const struct dc_unwind_map *maps, uint32_t count, struct dc_unwinder **ret_unwinder)
{
	CLEANUP(dc_unwinder) struct dc_unwinder *u = calloc(1, sizeof *u);

	if (!u)
		return -ENOMEM;
	u->places = calloc(count ? count : 1, sizeof *u->places);
	u->indexes = calloc(count ? count : 1, sizeof *u->indexes);
	if (!u->places || !u->indexes)
		return -ENOMEM;
	for (u->count = 0; u->count < count; u->count++)
		place_init(u, u->count, &maps[u->count]);
	*ret_unwinder = TAKE(u);
	return 0;
}

void dc_unwinder_free(struct dc_unwinder *u)
{
	if (!u)
		return;
	for (uint32_t i = 0; i < u->count; i++)
		dc_fde_index_fini(&u->indexes[i]);
	dc_row_table_fini(&u->rows);
	free(u->indexes);
	free(u->places);
	free(u);
}
