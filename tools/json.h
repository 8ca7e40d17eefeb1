/* SPDX-License-Identifier: MIT */
/*
 * Writing JSON (RFC 8259) as a stream: nothing is held, every byte sequence comes out as valid JSON.
 *
 *     struct json j;
 *     json_init(&j, stdout, true);
 *     json_object(&j, NULL);                  // NULL key: top level or element of an array
 *     json_text(&j, "name", name);
 *     json_array(&j, "lanes"); ... json_end(&j);
 *     json_end(&j);
 *     r = json_finish(&j);                    // 0 or -EIO and the like, once for all calls before
 *
 * Bytes that are not UTF-8 become U+FFFD, one each; control characters are escaped. Numbers JSON has no word
 * for become the strings "NaN", "Infinity", "-Infinity". Errors stick in the stream: check json_finish().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH_MAX 32u

struct json {
	FILE *out;
	bool pretty; /* a line per member, indented by tabs; else one line in all */
	unsigned depth;
	bool used[JSON_DEPTH_MAX]; /* this level has a member already */
	char close[JSON_DEPTH_MAX];
};

void json_init(struct json *j, FILE *out, bool pretty);

void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_end(struct json *j); /* of the innermost object or array; the outermost ends the line */

void json_text(struct json *j, const char *key, const char *text);
void json_bytes(struct json *j, const char *key, const char *bytes, size_t length);
void json_u64(struct json *j, const char *key, uint64_t v);
void json_i64(struct json *j, const char *key, int64_t v);
void json_f64(struct json *j, const char *key, double v);
void json_fixed(struct json *j, const char *key, double v, int decimals); /* rounded, for people's figures */
void json_micros(struct json *j, const char *key, int64_t ns); /* 1234.567: exact, unlike a double */
void json_bool(struct json *j, const char *key, bool v);
void json_null(struct json *j, const char *key);

int json_finish(struct json *j);
