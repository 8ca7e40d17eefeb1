/* SPDX-License-Identifier: MIT */
/*
 * Libraries that come and go, and sites: an instrumented library loaded 10,000 times takes the room of one,
 * its names outlive it, a full table costs no event its name, and switches written from outside hold at once.
 */
#include "tests/guests.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "recorder/dashcam.h"

static void load_often(void *arg)
{
	struct dc_stats before = {.size = sizeof before}, after = {.size = sizeof after};
	char path[512];
	(void)arg;
	snprintf(path, sizeof path, "%s/tests/plugin.so", getenv("DASHCAM_BUILD"));
	for (int i = 0; i < 10000; i++) {
		void *plugin = dlopen(path, RTLD_NOW);
		if (!plugin)
			fprintf(stderr, "%s\n", dlerror());
		NEED(plugin);
		void (*work)(int);
		*(void **)&work = dlsym(plugin, "plugin_work");
		NEED(work);
		work(i);
		NEED(dlclose(plugin) == 0);
		if (i == 100)
			NEED(dc_stats(&before) == 0);
	}
	NEED(dc_stats(&after) == 0);
	NEED(before.sites == after.sites);
}

/* Claim: 10,000 loads of an instrumented library add one site and one module, and its events keep their names. */
static void test_load_often(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (!getenv("DASHCAM_BUILD"))
		skip();
	assert_int_equal(guest_run(load_often, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "plugin"), 10000);
	assert_string_equal(guest_find(r, DC_KIND_BEGIN, "plugin", 9999)->text, "n=9999 text=of the plugin");
	assert_int_equal(r->header.sites_used, 2);
	assert_true(r->header.modules_used < 40);
	guest_rings_free(&rings);
}

static void many_sites(void *arg)
{
	static struct dc_site *site[DC_SITE_MAX + 3000];
	char name[32];
	(void)arg;
	for (int i = 0; i < 4090; i++) {
		snprintf(name, sizeof name, "name %d", i);
		dc_instant(dc_site_new(DC_SITE_INSTANT, name));
	}
	DC_INSTANT("one of the last", "n", 1);
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof name, "span %d", i);
		site[i] = dc_site_new(DC_SITE_SPAN, name);
	}
	DC_INSTANT("too many", "n", 1, "s", "text");
	dc_span_t s = DC_BEGIN("nameless", "n", 2);
	DC_INSTANT("inside");
	DC_END(s);
	for (int i = 0; i < 10; i++)
		DC_END(dc_begin(site[i]));
	DC_INSTANT("level");
}

/* Claim: events of sites beyond a full table carry their names and arguments; their spans nest as all others do. */
static void test_many_sites(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(many_sites, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(r->header.sites_used, DC_SITE_MAX);
	assert_int_equal(guest_count(r, 0, "name 4089"), 1);
	assert_int_equal(guest_count(r, 0, "too many"), 1);
	assert_non_null(strstr(guest_find(r, 0, "too many", 0)->text, "=text"));
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "nameless"), 1);
	assert_int_equal(guest_find(r, 0, "inside", 0)->depth, 1);
	assert_int_equal(guest_find(r, 0, "level", 0)->depth, 0);
	guest_rings_free(&rings);
}

static void switched(void *arg)
{
	struct dc_stats stats = {.size = sizeof stats};
	(void)arg;
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 1024; i++) {
			DC_INSTANT("switched", "round", round);
			DC_SPAN("switched span", "round", round);
			DC_INSTANT("beside", "round", round);
		}
		NEED(dc_stats(&stats) == 0);
		uint32_t word = round == 0 ? DC_ENABLE_OFF : round == 1 ? DC_ENABLE_THROTTLE(4) : 0;
		guest_switch(stats.ring, "switched", word);
		guest_switch(stats.ring, "switched span", word);
	}
	NEED(stats.misplaced_ends == 0);
}

static size_t with_text(const struct guest_ring *r, unsigned kind, const char *name, const char *text)
{
	size_t n = 0;
	for (size_t i = 0; i < r->count; i++)
		n += r->event[i].kind == kind && !strcmp(r->event[i].name, name) &&
		     !strcmp(r->event[i].text, text);
	return n;
}

/* Claim: control words written from outside switch a site off, throttle it to one of 2^n, and on again, at once. */
static void test_switches(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(switched, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(with_text(r, DC_KIND_INSTANT, "switched", "round=0"), 1024);
	assert_int_equal(with_text(r, DC_KIND_INSTANT, "switched", "round=1"), 0);
	assert_int_equal(with_text(r, DC_KIND_BEGIN, "switched span", "round=1"), 0);
	assert_int_equal(with_text(r, DC_KIND_INSTANT, "switched", "round=2") +
				 with_text(r, DC_KIND_BEGIN, "switched span", "round=2"),
			 2048 / 16);
	assert_int_equal(with_text(r, DC_KIND_INSTANT, "switched", "round=3"), 1024);
	assert_int_equal(guest_count(r, 0, "beside"), 4096);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "switched span"),
			 guest_count(r, DC_KIND_END, "switched span"));
	guest_rings_free(&rings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_load_often, guest_teardown),
		cmocka_unit_test_teardown(test_many_sites, guest_teardown),
		cmocka_unit_test_teardown(test_switches, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
