/* SPDX-License-Identifier: MIT */
/*
 * What the address space of a process consists of. Shared by its files, of no interest to others:
 *
 *   maps.c        what is known, and what becomes of it when somebody looks
 *   maps_read.c   what there is now: /proc/PID/maps, and the files
 *   maps_write.c  MAPS blocks
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

#include "trigger/maps.h"

#define KERNEL_START (UINT64_C(1) << 63)

struct mapping {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t vma_end; /* of its first part, as map_files calls it: adjoining parts are one here */
	dev_t dev; /* as the kernel prints it; on btrfs and overlays not what stat() says */
	ino_t ino; /* 0: of no file */
	uint8_t flags;
	int64_t from_ns;
	int64_t until_ns;
	uint64_t serial;
	struct dc_build_id id; /* of what is no file */
	struct dc_file *file;
	char *path;
};

/* What one look found, in order of addresses. */
struct found {
	uint32_t count;
	struct mapping *mappings; /* DC_MAPS_MAX */
};

struct dc_maps {
	_Atomic uint32_t refs;
	pthread_mutex_t lock; /* everything below */
	_Atomic bool wanted; /* written under the lock; asked without it, of every process at every look */
	int64_t due_ns;
	int64_t looked_ns; /* CLOCK_MONOTONIC of the last look, 0: none yet */
	uint64_t last_serial;
	uint32_t count;
	uint32_t room;
	struct mapping *mappings; /* in the order they were seen */
};

/* --- maps_read.c --- */

void dc_mapping_fini(struct mapping *p);
bool dc_mapping_same_file(const struct mapping *a, const struct mapping *b);
/* As /proc says it, with what it says besides. Return: 0, -ENOMEM. */
int dc_mapping_path(struct mapping *p, const char *path);

static inline void found_cleanup(struct found *f)
{
	for (uint32_t i = 0; i < f->count; i++)
		dc_mapping_fini(&f->mappings[i]);
	free(f->mappings);
}

/* Into @f, which has room for DC_MAPS_MAX; their files are held. Return: as dc_maps_look(). */
int dc_maps_read(uint32_t pid, uint64_t start_time, struct found *f);
