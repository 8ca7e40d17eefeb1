/* SPDX-License-Identifier: MIT */
/*
 * Which files are mapped executable, where, with which build-id: what turns an address into a name long after the
 * process and its files are gone. Read from /proc/self/maps in constructors, ours and those of libraries loaded later,
 * with raw system calls: never dl_iterate_phdr(), which takes the loader's lock. Other threads may unload what we look
 * at while we do, so ELF headers are read as from another process, where a page that went away is an error, no SIGSEGV.
 * Kept in a mirror that children inherit; a ring gets a copy when it is made.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "recorder/recorder.h"

#define TEXT_BYTES 8192u
#define PHDRS_MAX 64u
#define NONE UINT32_MAX
#define NOTE_GNU_BUILD_ID 3u

struct mapping {
	uint64_t start, end, offset;
	bool readable, executable;
	const char *path;
	size_t path_length;
};

struct module {
	uint64_t start, end; /* all its mappings */
	uint64_t first_end; /* of the mapping with the ELF header; 0: not seen */
	uint64_t here; /* an address of the module that says it was loaded */
	bool executable;
	char path[256];
};

static const char *hex_number(const char *p, uint64_t *ret_value)
{
	uint64_t v = 0;
	for (;; p++) {
		if (*p >= '0' && *p <= '9')
			v = v << 4 | (uint64_t)(*p - '0');
		else if (*p >= 'a' && *p <= 'f')
			v = v << 4 | (uint64_t)(*p - 'a' + 10);
		else
			break;
	}
	*ret_value = v;
	return p;
}

/* "55d0c0000000-55d0c0001000 r-xp 00001000 fd:00 1234   /usr/bin/x" */
static bool mapping_parse(const char *line, const char *end, struct mapping *ret)
{
	const char *p = hex_number(line, &ret->start);
	p = hex_number(p + 1, &ret->end);
	if (*p != ' ' || end - p < 8)
		return false;
	ret->readable = p[1] == 'r';
	ret->executable = p[3] == 'x';
	hex_number(p + 6, &ret->offset);
	const char *path = memchr(p, '/', (size_t)(end - p));
	/* the device field has no slash, so the first one begins the path */
	ret->path = path ? path : end;
	ret->path_length = (size_t)(end - ret->path);
	return path != NULL;
}

/* Copies own memory. Return: false when it is not (or no longer) there. */
static bool peek(uint64_t address, void *ret_bytes, size_t n)
{
	struct iovec to = { ret_bytes, n }, from = { (void *)(uintptr_t)address, n };
	return dc_sys(SYS_process_vm_readv, dc_sys(SYS_getpid), &to, 1, &from, 1, 0) == (long)n;
}

/* One PT_NOTE segment, its first 256 bytes: the build-id is a note of its own segment or among the first. */
static bool build_id_take(uint64_t at, uint64_t bytes, struct dc_ring_module *ret)
{
	uint8_t notes[256];
	size_t left = bytes < sizeof notes ? bytes : sizeof notes;
	if (!peek(at, notes, left))
		return false;
	for (const uint8_t *p = notes; left >= sizeof(Elf64_Nhdr);) {
		Elf64_Nhdr n;
		memcpy(&n, p, sizeof n);
		uint64_t name = (n.n_namesz + UINT64_C(3)) & ~UINT64_C(3), desc = (n.n_descsz + UINT64_C(3)) & ~UINT64_C(3);
		if (sizeof n + name + desc > left)
			return false;
		p += sizeof n;
		if (n.n_type == NOTE_GNU_BUILD_ID && n.n_namesz == 4 && memcmp(p, "GNU", 4) == 0 &&
		    n.n_descsz <= sizeof ret->build_id) {
			memcpy(ret->build_id, p + name, n.n_descsz);
			ret->build_id_bytes = (uint8_t)n.n_descsz;
			return true;
		}
		p += name + desc;
		left -= sizeof n + name + desc;
	}
	return false;
}

/* Load bias and build-id of an ELF image whose header is mapped at [start, first_end). */
static void image_read(const struct module *m, struct dc_ring_module *ret)
{
	uint64_t size = m->first_end - m->start;
	Elf64_Ehdr eh;
	if (!peek(m->start, &eh, sizeof eh) || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 ||
	    eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_phentsize != sizeof(Elf64_Phdr) || eh.e_phoff > size)
		return;
	Elf64_Phdr ph[PHDRS_MAX / 4]; /* on a signal handler's stack, perhaps: a few at a time */
	bool found = false;
	for (unsigned at = 0; at < eh.e_phnum && at < PHDRS_MAX; at += PHDRS_MAX / 4) {
		unsigned n = eh.e_phnum - at < PHDRS_MAX / 4 ? eh.e_phnum - at : PHDRS_MAX / 4;
		if (!peek(m->start + eh.e_phoff + at * sizeof *ph, ph, n * sizeof *ph))
			return;
		for (unsigned i = 0; i < n; i++) {
			if (ph[i].p_type == PT_LOAD && ph[i].p_offset == 0)
				ret->base = m->start - (ph[i].p_vaddr & ~(uint64_t)(DC_PAGE_BYTES - 1));
			if (ph[i].p_type == PT_NOTE && !found && ph[i].p_offset < size &&
			    ph[i].p_filesz <= size - ph[i].p_offset)
				found = build_id_take(m->start + ph[i].p_offset, ph[i].p_filesz, ret);
		}
	}
}

/* What a child inherits, in the order found. */
static struct {
	uint32_t used;
	uint32_t first; /* entries of the first scan from a constructor */
	struct dc_ring_module entries[DC_MODULE_MAX];
	uint64_t caller[DC_MODULE_MAX]; /* the address that told of it first; 0: none has */
} mirror;

/*
 * Whether a later entry claims an address of entry @i. A library that comes where another had been gets an entry of its
 * own, and of two that claim an address the later is the one that was there last.
 */
static bool module_hidden(uint32_t i, uint32_t used)
{
	const struct dc_ring_module *m = mirror.entries;
	for (uint32_t k = 0; k < used && k < DC_MODULE_MAX; k++)
		if (m[k].start < m[i].end && m[i].start < m[k].end && m[k].loaded_tick > m[i].loaded_tick)
			return true;
	return false;
}

/*
 * The entry of the same file at the same place. Without @e, whose build-id takes system calls, only one that nobody came
 * after; with @e the same build, whatever came between. NONE: there is none.
 */
static uint32_t module_find(const struct module *m, uint32_t path, const struct dc_ring_module *e)
{
	uint32_t used = __atomic_load_n(&mirror.used, __ATOMIC_ACQUIRE); /* [module-mirror] acquire */
	for (uint32_t i = 0; i < used && i < DC_MODULE_MAX; i++) {
		const struct dc_ring_module *k = &mirror.entries[i];
		/* [module-mirror] acquire: a published entry is whole */
		if (__atomic_load_n(&k->published, __ATOMIC_ACQUIRE) && k->start == m->start && k->end == m->end &&
		    k->path == path &&
		    (e ? memcmp(k->build_id, e->build_id, sizeof k->build_id) == 0 : !module_hidden(i, used)))
			return i;
	}
	return NONE;
}

static bool module_to_ring(struct dc_recorder *r, uint32_t i)
{
	struct dc_ring_module *e = &r->modules[i];
	if (i >= r->header->module_cap || dc_populate(r, e, sizeof *e))
		return false;
	*e = mirror.entries[i];
	/* [table-publish] release; pairs with the reader's acquire fence after its pread */
	__atomic_store_n(&e->published, 1, __ATOMIC_RELEASE);
	uint32_t used = __atomic_load_n(&r->header->modules_used, __ATOMIC_RELAXED);
	while (used < i + 1 && !__atomic_compare_exchange_n(&r->header->modules_used, &used, i + 1, true,
							    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		; /* [table-publish] release of the count; each entry says for itself whether it is there */
	return true;
}

static void called_by(uint32_t i, uint64_t here)
{
	__atomic_store_n(&mirror.caller[i], here, __ATOMIC_RELAXED); /* a wrong one costs a scan */
}

static void module_new(struct dc_recorder *r, const struct dc_ring_module *e, uint64_t here)
{
	uint32_t i = __atomic_load_n(&mirror.used, __ATOMIC_RELAXED); /* the exchange decides */
	do {
		if (i >= DC_MODULE_MAX)
			return;
		/* [module-mirror] release; an entry counted but not published yet reads as zero */
	} while (!__atomic_compare_exchange_n(&mirror.used, &i, i + 1, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	mirror.entries[i] = *e;
	called_by(i, here);
	/* [module-mirror] release; pairs with the acquire in dc_modules_restore() and module_find() */
	__atomic_store_n(&mirror.entries[i].published, 1, __ATOMIC_RELEASE);
	if (r)
		module_to_ring(r, i);
}

static void module_add(struct dc_recorder *r, const struct module *m)
{
	bool called = m->here >= m->start && m->here < m->end; /* may be new although all else is as it was */
	if (!m->executable || !m->path[0])
		return;
	struct dc_ring_module e = { .start = m->start,
				    .end = m->end,
				    .base = m->start,
				    .loaded_tick = dc_ticks(r),
				    .path = dc_string_add(r, m->path, sizeof m->path - 1) };
	if (!called && module_find(m, e.path, NULL) != NONE)
		return;
	if (m->first_end)
		image_read(m, &e);
	uint32_t known = module_find(m, e.path, &e);
	if (known == NONE) {
		module_new(r, &e, called ? m->here : 0);
		return;
	}
	if (called)
		called_by(known, m->here);
	/* back where it was: so now it is the last that came there. Hints, each by itself */
	__atomic_store_n(&mirror.entries[known].loaded_tick, e.loaded_tick, __ATOMIC_RELAXED);
	if (r && known < r->header->modules_used && r->modules[known].published)
		__atomic_store_n(&r->modules[known].loaded_tick, e.loaded_tick, __ATOMIC_RELAXED);
}

static void mapping_take(struct dc_recorder *r, struct module *m, const struct mapping *line)
{
	bool same = m->path[0] && strncmp(m->path, line->path, line->path_length) == 0 && !m->path[line->path_length];
	if (!same) {
		module_add(r, m);
		*m = (struct module){ .start = line->start, .here = m->here };
		if (line->path_length < sizeof m->path)
			memcpy(m->path, line->path, line->path_length);
	}
	m->end = line->end;
	m->executable |= line->executable;
	if (!line->offset && line->readable && !m->first_end)
		m->first_end = line->end;
}

/* The lines of @text that are whole; returns how many bytes they took. */
static size_t lines_take(struct dc_recorder *r, struct module *m, const char *text, size_t bytes)
{
	size_t at = 0;
	for (;;) {
		const char *end = memchr(text + at, '\n', bytes - at);
		if (!end)
			return at;
		struct mapping line;
		if (mapping_parse(text + at, end, &line) && line.path_length)
			mapping_take(r, m, &line);
		at = (size_t)(end - text) + 1;
	}
}

static void maps_read(struct dc_recorder *r, long fd, char *text, uint64_t here)
{
	size_t held = 0;
	struct module m = { .here = here };
	for (;;) {
		long n = dc_sys(SYS_read, fd, text + held, TEXT_BYTES - held);
		if (n <= 0)
			break;
		held += (size_t)n;
		size_t used = lines_take(r, &m, text, held);
		if (!used && held == TEXT_BYTES)
			break; /* a path longer than any kernel prints */
		held -= used;
		memmove(text, text + used, held);
	}
	module_add(r, &m);
}

void dc_modules_scan(struct dc_recorder *r, const void *here)
{
	/* a line may be longer than a signal handler's stack, and several threads may be here */
	char *text = dc_sys_mmap(NULL, TEXT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long fd = dc_sys(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	if (fd >= 0 && !DC_MAP_FAILED(text))
		maps_read(r, fd, text, (uintptr_t)here);
	if (fd >= 0)
		dc_sys(SYS_close, fd);
	if (!DC_MAP_FAILED(text))
		dc_sys(SYS_munmap, text, TEXT_BYTES);
}

int dc_modules_restore(struct dc_recorder *r)
{
	uint32_t used = __atomic_load_n(&mirror.used, __ATOMIC_ACQUIRE); /* [module-mirror] acquire */
	for (uint32_t i = 0; i < used; i++)
		/* [module-mirror] acquire; one that another thread was just adding when it forked is left out */
		if (__atomic_load_n(&mirror.entries[i].published, __ATOMIC_ACQUIRE) && !module_to_ring(r, i))
			return -ENOSPC;
	return used ? 0 : -ENOENT;
}

static bool same_build(const struct dc_ring_module *e)
{
	struct dc_ring_module now = { 0 };
	image_read(&(struct module){ .start = e->start, .first_end = e->end }, &now);
	return now.build_id_bytes && memcmp(now.build_id, e->build_id, sizeof now.build_id) == 0;
}

/*
 * Whether a scan has seen what just loaded: the module at @here and what it brought along. Every object file of a program
 * that records says that it was loaded, and a scan of all maps for each would cost more than all else of ours before
 * main(). A module tells by the same address first whenever it is loaded, so if that was another one, this is the same
 * load; and what the first scan of all found, and has not told of itself yet, is being loaded together with us.
 */
static bool is_known(uint64_t here)
{
	uint32_t used = __atomic_load_n(&mirror.used, __ATOMIC_ACQUIRE); /* [module-mirror] acquire */
	for (uint32_t i = 0; i < used && i < DC_MODULE_MAX; i++) {
		const struct dc_ring_module *e = &mirror.entries[i];
		/* [module-mirror] acquire: a published entry is whole */
		if (!__atomic_load_n(&e->published, __ATOMIC_ACQUIRE) || here < e->start || here >= e->end ||
		    module_hidden(i, used))
			continue;
		uint64_t caller = __atomic_load_n(&mirror.caller[i], __ATOMIC_RELAXED); /* see called_by() */
		if (caller == here || (!caller && i >= mirror.first) || !same_build(e))
			return false;
		if (!caller)
			called_by(i, here);
		return true;
	}
	return false;
}

/* From constructors: of the library itself, so that starting to record need not read maps, and of every user of it. */
void dc_module_loaded(const void *here)
{
	if (is_known((uintptr_t)here))
		return;
	struct dc_recorder *r = dc_recorder;
	/* [phase] acquire; pairs with the release in start_elected() */
	bool on = r && __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) == DC_PHASE_ON;
	dc_modules_scan(on ? r : NULL, here);
	if (!mirror.first)
		mirror.first = __atomic_load_n(&mirror.used, __ATOMIC_RELAXED); /* the loader runs one constructor at a time */
}

__attribute__((constructor)) static void modules_at_load(void)
{
	struct dc_settings settings;
	dc_settings_read(NULL, &settings);
	if (!settings.off)
		dc_module_loaded(&mirror);
}
