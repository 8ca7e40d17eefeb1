/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as an ELF file, as /proc/kallsyms, as a mangled name: named or refused, nothing worse. A first byte 'k' or
 * 'n' says it is one of the latter two.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/stacks/demangle.h"
#include "persist/stacks/symbols.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int file_of(const uint8_t *data, size_t bytes)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd >= 0 && write(fd, data, bytes) != (ssize_t)bytes) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Every chain is whole: texts that end, and no more than there is room for. */
static void ask(struct dc_symbols *s)
{
	struct dc_symbol chain[DC_SYMBOLS_CHAIN_MAX];
	size_t total = 0;

	dc_symbols_source(s);
	for (uint64_t at = 0; at < 0x5000; at += 0x15) {
		unsigned count = dc_symbols_at(s, at, chain, DC_SYMBOLS_CHAIN_MAX);

		if (count > DC_SYMBOLS_CHAIN_MAX || dc_symbols_at(s, at, chain, DC_SYMBOLS_CHAIN_MAX) != count)
			abort();
		for (unsigned i = 0; i < count; i++)
			total += strlen(chain[i].function) + strlen(chain[i].file);
	}
	if (total == SIZE_MAX)
		abort();
}

static void as_elf(const uint8_t *data, size_t bytes)
{
	static const char *const none[] = {NULL};
	CLEANUP(close_fd) int fd = file_of(data, bytes);
	CLEANUP(dc_symbols) struct dc_symbols *s = NULL;

	if (fd >= 0 && dc_symbols_open(fd, NULL, &(struct dc_symbols_options){.debug_dirs = none, .lines = true}, &s) == 0)
		ask(s);
}

static void as_kallsyms(const uint8_t *data, size_t bytes)
{
	CLEANUP(close_fd) int fd = file_of(data, bytes);
	CLEANUP(dc_symbols) struct dc_symbols *s = NULL;

	lseek(fd, 0, SEEK_SET);
	if (fd >= 0 && dc_symbols_open_kallsyms(fd, &s) == 0)
		ask(s);
}

static void as_name(const uint8_t *data, size_t bytes)
{
	static char buffer[DC_DEMANGLED_BYTES];
	char *name = strndup((const char *)data, bytes);

	if (name && dc_demangle(name, buffer) == buffer && strlen(buffer) >= DC_DEMANGLED_BYTES)
		abort();
	free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes && data[0] == 'k')
		as_kallsyms(data + 1, bytes - 1);
	else if (bytes && data[0] == 'n')
		as_name(data + 1, bytes - 1);
	else
		as_elf(data, bytes);
	return 0;
}
