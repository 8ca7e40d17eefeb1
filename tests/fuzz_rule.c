/* SPDX-License-Identifier: MIT */
/*
 * Any text as a rule. Held to: an error lies inside the text and says why; a tree is within its bounds, each node before what
 * is made of it; the sentence fits, and the text it keeps parses to the same tree again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/rules/rule.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void must_be_a_tree(const struct dc_rule_expression *e, size_t length)
{
	must(e->count >= 1 && e->count <= DC_RULE_NODES_MAX && e->root == e->count - 1);
	must(e->where_count <= DC_RULE_WHERE_MAX && e->probability >= 0 && e->probability <= 1);
	for (unsigned i = 0; i < e->count; i++) {
		const struct dc_rule_node *n = &e->nodes[i];

		must(n->op >= DC_RULE_AND && n->op <= DC_RULE_PSI);
		must(n->op > DC_RULE_WITHIN || n->left < i);
		must((n->op != DC_RULE_AND && n->op != DC_RULE_OR) || (n->right < i && n->right != n->left));
		must(n->where + n->where_count <= e->where_count);
		must(n->column >= 1 && n->length >= 1 && n->column + n->length <= length + 1u);
		must(n->over_ns >= 0 && n->over_ns <= INT64_C(604800000000000));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct dc_rule_expression e, again;
	struct dc_rule_error error = {0};
	char sentence[4096];
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	size = strlen(text);
	if (dc_rule_parse(text, &e, &error) < 0) {
		must(error.column >= 1 && error.column <= size + 1 && error.length >= 1 && *error.why);
		must(error.column + error.length <= size + 2u);
	} else {
		must_be_a_tree(&e, size);
		dc_rule_explain(&e, sentence, sizeof(sentence));
		must(strncmp(sentence, "when ", 5) == 0 && strlen(sentence) < sizeof(sentence));
		must(strcmp(e.text, text) == 0);
		memset(&again, 0, sizeof(again));
		must(dc_rule_parse(e.text, &again, &error) == 0 && memcmp(&again, &e, sizeof(e)) == 0);
	}
	free(text);
	return 0;
}
