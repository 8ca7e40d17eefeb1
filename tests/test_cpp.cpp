/* SPDX-License-Identifier: MIT */
/*
 * The same API in C++17: spans end with their scope whatever ends it, types are found through templates,
 * sites of inline functions and lambdas are sites like others, thread_local destructors may record.
 */
extern "C" {
#include "tests/guests.h"
}

#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "recorder/dashcam.h"

namespace
{

template <typename T> void templated(T value)
{
	DC_INSTANT("templated", "value", value);
}

inline int inlined(int n)
{
	DC_SPAN("inlined", "n", n);
	return n + 1;
}

enum class Colour : short { green = -3 };

struct Object {
	int field = 5;
	void method() const
	{
		DC_SPAN("method", "this", this, "field", field);
	}
};

void throws(int depth)
{
	DC_SPAN("throws", "depth", depth);
	if (depth == 0)
		throw std::runtime_error("out");
	throws(depth - 1);
}

void api(void *)
{
	const std::string text = "a string";
	const int &reference = 7;
	bool flag = true;
	const char array[] = "array";
	templated(1);
	templated(2u);
	templated(-3L);
	templated(4.5);
	templated(5.5f);
	templated(true);
	templated("literal");
	templated(Colour::green);
	templated(nullptr);
	DC_INSTANT("mixed", "s", text.c_str(), "r", reference, "f", flag, "a", array, "e", Colour::green, "c",
		   'A', "x", DC_SECRET(text), "n", static_cast<const char *>(nullptr));
	DC_LOG(DC_WARN, "%d of %s", inlined(1), text.c_str());
	auto lambda = [&](int n) { DC_SPAN("lambda", "n", n, "text", text.c_str()); };
	lambda(3);
	Object().method();
	dc_span_t s = DC_BEGIN("begun", "size", text.size());
	try {
		throws(3);
	} catch (const std::exception &e) {
		DC_LOG(DC_ERROR, "caught %s", e.what());
	}
	DC_END(s);
	DC_ASYNC_BEGIN("async", 5, "n", 1);
	DC_ASYNC_END("async", 5);
	DC_COUNTER("counter", text.size());
	DC_FLOW_OUT(9);
	DC_TRIGGER("trigger", "n", 1);
	DC_STACK("stack");
	dc_instant(dc_site_new(DC_SITE_INSTANT, "runtime"));
	DC_INSTANT("level");
}

void expect(const struct guest_ring *r, unsigned kind, const char *name, size_t n, const char *text)
{
	const struct guest_event *e = guest_find(r, kind, name, n);
	if (!e)
		fail_msg("no event '%s' of kind %u", name ? name : "", kind);
	assert_string_equal(e->text, text);
}

struct guest_rings rings;

/* Claim: every type deduces, every scope ends its span, exceptions included. */
void test_api(void **)
{
	static const char *const values[] = {"value=1",       "value=2",   "value=-3",
					     "value=4.5",     "value=5.5", "value=true",
					     "value=literal", "value=-3",  "value=0x0"};
	assert_int_equal(guest_run(api, nullptr), 0);
	const struct guest_ring *r = guest_only(&rings);
	for (size_t i = 0; i < sizeof values / sizeof *values; i++)
		expect(r, DC_KIND_INSTANT, "templated", i, values[i]);
	expect(r, DC_KIND_INSTANT, "mixed", 0, "s=a string r=7 f=true a=array e=-3 c=65 x=<secret> n=(null)");
	expect(r, DC_KIND_LOG, nullptr, 0, "2 of a string");
	expect(r, DC_KIND_BEGIN, "lambda", 0, "n=3 text=a string");
	expect(r, DC_KIND_BEGIN, "inlined", 0, "n=1");
	expect(r, DC_KIND_BEGIN, "begun", 0, "size=8");
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "throws"), 4);
	assert_int_equal(guest_count(r, DC_KIND_END, "throws"), 4);
	for (size_t i = 0; i < r->count; i++)
		assert_false(r->event[i].implied);
	expect(r, DC_KIND_LOG, nullptr, 1, "caught out");
	assert_int_equal(guest_find(r, DC_KIND_LOG, nullptr, 1)->depth, 1);
	assert_int_equal(guest_find(r, 0, "level", 0)->depth, 0);
	assert_int_equal(r->dropped, 0);
	guest_rings_free(&rings);
}

struct Late {
	int n = 0;
	~Late()
	{
		DC_SPAN("destructor", "n", n);
	}
};
thread_local Late late;

void destructors(void *)
{
	for (int i = 0; i < 100; i++)
		std::thread([i] {
			DC_INSTANT("body");
			late.n = i;
		}).join();
	late.n = 1000;
}

/* Claim: destructors of thread_local objects record, in the lane of their thread. */
void test_destructors(void **)
{
	assert_int_equal(guest_run(destructors, nullptr), 0);
	const struct guest_ring *r = guest_only(&rings);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "destructor"), 101);
	assert_int_equal(guest_count(r, DC_KIND_END, "destructor"), 101);
	assert_int_equal(guest_count(r, 0, "body"), 100);
	assert_int_equal(r->dropped, 0);
	assert_true(r->header.lanes_used <= 2);
	guest_rings_free(&rings);
}

} // namespace

int main()
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_api, guest_teardown),
		cmocka_unit_test_teardown(test_destructors, guest_teardown),
	};
	return cmocka_run_group_tests(tests, nullptr, nullptr);
}
