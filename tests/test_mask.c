/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "trigger/mask.h"

/* Arguments are written with '|' between them. */
static const char *masked(const char *line)
{
	static char text[512];
	char args[512];
	size_t n = strlen(line);

	memcpy(args, line, n + 1);
	for (size_t i = 0; i < n; i++)
		if (args[i] == '|')
			args[i] = '\0';
	dc_mask(args, n + 1, text, sizeof(text));
	return text;
}

static void test_named_secrets(void **state)
{
	/* A value whose name speaks of a secret is masked in every way of writing it; the name stays. */
	(void)state;
	assert_string_equal(masked("app|--password=hunter2|-v"), "app --password=*** -v");
	assert_string_equal(masked("app|--api-token|abc|run"), "app --api-token *** run");
	assert_string_equal(masked("env|DB_PASSWORD=x y|PORT=80"), "env DB_PASSWORD=*** PORT=80");
	assert_string_equal(masked("curl|-H|Authorization: Bearer abc.def"), "curl -H Authorization: ***");
	assert_string_equal(masked("curl|-H|X-Api-Key: k1"), "curl -H X-Api-Key: ***");
	assert_string_equal(masked("x|Bearer abc"), "x Bearer ***");
	assert_string_equal(masked("curl|-u|me:geheim|http://h/"), "curl -u me:*** http://h/");
	assert_string_equal(masked("x|--Client_Secret|s"), "x --Client_Secret ***");
}

static void test_urls(void **state)
{
	/* Passwords in URLs and secret parameters are masked, the rest of the URL is not. */
	(void)state;
	assert_string_equal(masked("psql|postgres://bob:geheim@db:5432/x"), "psql postgres://bob:***@db:5432/x");
	assert_string_equal(masked("get|https://h/p?a=1&token=abc&b=2"), "get https://h/p?a=1&token=***&b=2");
	assert_string_equal(masked("get|https://bob@h/p"), "get https://bob@h/p");
	assert_string_equal(masked("r|redis://:pw@h"), "r redis://:***@h");
}

static void test_generated_tokens(void **state)
{
	/* Words that only a machine makes are masked without a name. */
	(void)state;
	assert_string_equal(masked("x|ghp_0123456789abcdefABCDEF"), "x ***");
	assert_string_equal(masked("x|9f86d081884c7d659a2feaa0c55ad015"), "x ***");
	assert_string_equal(masked("x|eyJhbGciOiJIUzI1NiJ9.abc"), "x ***.abc");
}

static void test_innocent_words_stay(void **state)
{
	/* What is no secret is not touched. */
	static const char *const innocent[] = {
		"nginx|-g|daemon off;",
		"app|--password-file=/etc/pw|--port=8080",
		"java|-Xmx4g|-jar|/opt/very/long/path/to/some/application-server-1.2.3.jar",
		"redis-server|127.0.0.1:6379",
		"python3|-m|http.server|--bind|::1|8000",
		"app|--monkey|banana|--keyboard=us",
	};
	(void)state;
	for (size_t i = 0; i < sizeof(innocent) / sizeof(innocent[0]); i++) {
		char want[512];

		strcpy(want, innocent[i]);
		for (char *p = want; *p; p++)
			if (*p == '|')
				*p = ' ';
		assert_string_equal(masked(innocent[i]), want);
	}
}

static void test_hostile_bytes(void **state)
{
	/* Control characters cannot reach a terminal, nothing is written beyond the size, an unended argument is fine. */
	char text[9];

	(void)state;
	assert_string_equal(masked("a\033[2Jb|\n"), "a?[2Jb ?");
	memset(text, 'x', sizeof(text));
	dc_mask("0123456789", 10, text, 8);
	assert_string_equal(text, "0123456");
	assert_int_equal(text[8], 'x');
	dc_mask("--password", 10, text, 8);
	dc_mask("", 0, text, 8);
	assert_string_equal(text, "");
	dc_mask("--token\0abcdefgh", 16, text, 1);
	assert_string_equal(text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_named_secrets),	    cmocka_unit_test(test_urls),
		cmocka_unit_test(test_generated_tokens),    cmocka_unit_test(test_innocent_words_stay),
		cmocka_unit_test(test_hostile_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
