/* SPDX-License-Identifier: MIT */
/*
 * Asking for the past to be saved: a slot in the ring, which stays whatever happens to us, and a datagram to the watcher,
 * which only makes it look sooner. The slot is found at the watcher's next look (4 a second) even when the doorbell is
 * out of reach: another root directory, no socket left, nobody there.
 *
 * At most one doorbell is unanswered per process: a storm of triggers costs a slot each, not a system call each.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "recorder/recorder.h"

static void ring_doorbell(struct dc_recorder *r, uint32_t seq)
{
	uint32_t rung = __atomic_load_n(&r->doorbell_rung, __ATOMIC_RELAXED); /* the exchange decides who rings */
	uint32_t ack = __atomic_load_n(&r->control->doorbell_ack, __ATOMIC_RELAXED); /* a hint from outside */
	if (!r->doorbell[0] || !__atomic_load_n(&r->control->watcher_pid, __ATOMIC_RELAXED))
		return;
	if (rung && (int32_t)(ack - rung) < 0)
		return; /* the last ring is not answered yet */
	if (!__atomic_compare_exchange_n(&r->doorbell_rung, &rung, seq, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return;
	long fd = dc_sys(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	memcpy(to.sun_path, r->doorbell, sizeof to.sun_path);
	dc_sys(SYS_sendto, fd, &r->pid, sizeof r->pid, MSG_DONTWAIT | MSG_NOSIGNAL, &to, sizeof to);
	dc_sys(SYS_close, fd);
}

static void fill_slot(struct dc_recorder *r, uint64_t seq, uint16_t reason, uint16_t site, uint64_t value,
		      const char *text)
{
	struct dc_ring_trigger *s = &r->triggers[(seq - 1) % r->header->trigger_cap];
	if (dc_populate(r, s, sizeof *s))
		return; /* the count still goes up: a watcher sees that something fired */
	__atomic_store_n(&s->seq, 0, __ATOMIC_RELAXED); /* the fence orders it before the fields */
	__atomic_thread_fence(__ATOMIC_RELEASE); /* [trigger-slot] zero before the fields */
	s->tick = dc_ticks(r);
	s->value = value;
	s->tid = (uint32_t)dc_sys(SYS_gettid);
	s->site = site;
	s->reason = reason;
	memset(s->text, 0, sizeof s->text);
	memcpy(s->text, text, strnlen(text, sizeof s->text - 1));
	/* [trigger-slot] release; pairs with the watcher, which reads the slot twice and believes equal sequences */
	__atomic_store_n(&s->seq, seq, __ATOMIC_RELEASE);
}

static void fire(struct dc_recorder *r, uint16_t reason, uint16_t site, uint64_t value, const char *text)
{
	/* [trigger-slot] release as well: a watcher that sees the new count finds the slot or a zero in it */
	uint64_t seq = __atomic_add_fetch(&r->header->trigger_seq, 1, __ATOMIC_RELEASE);
	fill_slot(r, seq, reason, site, value, text);
	ring_doorbell(r, (uint32_t)seq);
}

void dc_trigger(struct dc_site *site, const uint64_t *args)
{
	dc_eventv(site, args);
	dc_slow_enter();
	if (dc_recorder_on()) {
		/* the release in fire() is what a watcher goes by: one that sees the trigger sees it counted */
		__atomic_add_fetch(&dc_recorder->header->triggers_asked, 1, __ATOMIC_RELAXED);
		fire(dc_recorder, DC_TRIGGER_API, site->id, 0, site->name);
	}
	dc_slow_leave();
}

/* The span just ended outlasted its threshold. Its text is its name, for a watcher that has not read the tables yet. */
void dc_span_over(unsigned site, uint64_t units)
{
	dc_slow_enter();
	struct dc_recorder *r = dc_recorder;
	/* [phase] acquire: a child forked after the span ended has no ring yet */
	if (r && __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) == DC_PHASE_ON && site < r->header->site_cap) {
		uint32_t name = r->sites[site].name;
		fire(r, DC_TRIGGER_SPAN, (uint16_t)site, units, name < r->header->strings_bytes ? r->strings + name : "");
	}
	dc_slow_leave();
}

/* The process is about to die: in the handler, with a recorder that is on. */
void dc_trigger_crash(struct dc_recorder *r, int signal, const char *text)
{
	fire(r, DC_TRIGGER_CRASH, 0, (uint64_t)signal, text);
}
