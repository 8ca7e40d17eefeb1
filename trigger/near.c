/* SPDX-License-Identifier: MIT */
#include "trigger/near.h"

#include <string.h>

/* Edit distance with a limit worth suggesting; @a and @b are option or command names, so a short row does. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[32], n = (unsigned)strlen(b);

	if (n >= 31 || strlen(a) >= 31)
		return 99;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; *a; i++, a++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned change = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			row[j] = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
			row[j] = row[j] < change ? row[j] : change;
		}
	}
	return row[n];
}

bool dc_near(const char *word, const char *name, unsigned *best)
{
	unsigned d = strlen(word) >= 3 && strncmp(name, word, strlen(word)) == 0 ? 1 : distance(word, name);

	if (d >= *best || d > 2 || d >= strlen(name))
		return false;
	*best = d;
	return true;
}
