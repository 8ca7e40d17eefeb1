/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>

#include "persist/block.h"

static uint8_t payload[1000];

static struct dc_block_header sealed(size_t bytes, uint64_t align)
{
	struct dc_block_header h = {.type = DC_BLOCK_LOSS, .stored_bytes = bytes, .plain_bytes = bytes};

	for (size_t i = 0; i < sizeof payload; i++)
		payload[i] = (uint8_t)(i * 7);
	dc_block_seal(&h, payload, align);
	return h;
}

/* Makes the sum right again after a lie, as a hostile file would. */
static void resum(struct dc_block_header *h)
{
	h->header_xxh3 = dc_checksum(h, offsetof(struct dc_block_header, header_xxh3));
}

static void test_sealed_block_passes(void **state)
{
	/* What was sealed is believed, at both alignments, and the next block is at the next aligned offset. */
	struct dc_block_header h = sealed(1000, DC_BLOCK_ALIGN);

	(void)state;
	assert_int_equal(h.next, 1088);
	assert_int_equal(dc_block_check(&h, 1064), 0);
	assert_true(dc_block_intact(&h, payload));
	h = sealed(0, DC_RAW_ALIGN);
	assert_int_equal(h.next, 4096);
	assert_int_equal(dc_block_check(&h, 64), 0);
	assert_true(dc_block_intact(&h, payload));
}

static void test_every_flipped_bit_is_seen(void **state)
{
	/* No single flipped bit of header or payload goes unnoticed. */
	struct dc_block_header good = sealed(1000, DC_BLOCK_ALIGN);

	(void)state;
	for (size_t bit = 0; bit < 8 * sizeof good; bit++) {
		struct dc_block_header bad = good;

		((uint8_t *)&bad)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(dc_block_check(&bad, 1 << 20), -EBADMSG);
	}
	for (size_t bit = 0; bit < 8 * sizeof payload; bit++) {
		payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(dc_block_intact(&good, payload));
		payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void test_cut_payload_is_told_from_damage(void **state)
{
	/* A block whose payload the file's end cuts off is -ENODATA; a header that is cut is not a header. */
	struct dc_block_header h = sealed(1000, DC_BLOCK_ALIGN);

	(void)state;
	assert_int_equal(dc_block_check(&h, 1063), -ENODATA);
	assert_int_equal(dc_block_check(&h, 63), -EBADMSG);
}

static void test_lying_sizes_are_refused(void **state)
{
	/* Sizes that lie are refused although the sum is right: it is no secret how to make one. */
	struct dc_block_header h;

	(void)state;
	h = sealed(1000, DC_BLOCK_ALIGN), h.next = 1064, resum(&h);
	assert_int_equal(dc_block_check(&h, 1 << 20), -EBADMSG);
	h = sealed(1000, DC_BLOCK_ALIGN), h.next = 0, resum(&h);
	assert_int_equal(dc_block_check(&h, 1 << 20), -EBADMSG);
	h = sealed(1000, DC_BLOCK_ALIGN), h.next = 1024, resum(&h);
	assert_int_equal(dc_block_check(&h, 1 << 20), -EBADMSG);
	h = sealed(1000, DC_BLOCK_ALIGN), h.stored_bytes = UINT64_MAX - 40, resum(&h);
	assert_int_equal(dc_block_check(&h, 1 << 20), -EBADMSG);
	h = sealed(1000, DC_BLOCK_ALIGN), h.plain_bytes = 999, resum(&h);
	assert_int_equal(dc_block_check(&h, 1 << 20), -EBADMSG);
	h = sealed(1000, DC_BLOCK_ALIGN), h.flags = DC_BLOCK_ZSTD, h.plain_bytes = DC_BLOCK_PLAIN_MAX + 1,
	resum(&h);
	assert_int_equal(dc_block_check(&h, 1 << 20), -E2BIG);
	h = sealed(1000, DC_BLOCK_ALIGN), h.flags = 2, resum(&h);
	assert_int_equal(dc_block_check(&h, 1 << 20), -EPROTONOSUPPORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sealed_block_passes),
		cmocka_unit_test(test_every_flipped_bit_is_seen),
		cmocka_unit_test(test_cut_payload_is_told_from_damage),
		cmocka_unit_test(test_lying_sizes_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
