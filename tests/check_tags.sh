#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory order is written down where it is used: every access stronger than relaxed carries a [tag-like-this] on its line
# or in the comment right above, and every tag has both a releasing and an acquiring end in the code.
source "$(dirname "$0")/check.sh"

check() {
	sources ipc recorder persist trigger tools 2>/dev/null | grep -v '^tools/demo\.d/' | xargs -r awk '
	# Tags in a comment; one of a single word ([phase]) only where the comment speaks of order.
	function tags_of(comment,  tag, spoken) {
		spoken = comment ~ /acquire|release|pairs|^ *\[[a-z0-9]+\] *$/
		while (match(comment, /(^|[^a-z0-9_])\[[a-z][a-z0-9]+(-[a-z0-9]+)*\]/)) {
			tag = substr(comment, RSTART, RLENGTH)
			comment = substr(comment, RSTART + RLENGTH)
			sub(/^[^\[]/, "", tag)
			if (tag !~ /-/ && !spoken) continue
			near[tag] = 1
			if (!(tag in mentioned)) mentioned[tag] = FILENAME ":" FNR
		}
	}
	# Cuts the line into code and comment; in_comment lasts over lines. Strings with comment marks do not occur.
	function cut(line,  at) {
		code = comment = ""
		while (line != "") {
			if (in_comment) {
				at = index(line, "*/")
				comment = comment (at ? substr(line, 1, at - 1) : line)
				line = at ? substr(line, at + 2) : ""
				in_comment = !at
			} else {
				match(line, /\/\*|\/\/|$/)
				code = code substr(line, 1, RSTART - 1)
				if (substr(line, RSTART, 2) == "//") { comment = comment substr(line, RSTART); return }
				in_comment = RLENGTH == 2
				line = RLENGTH == 2 ? substr(line, RSTART + 2) : ""
			}
		}
	}
	# The end of a statement: its tags, above it or at the ends of its lines, meet its orders.
	function settle(  t, found) {
		for (t in near) {
			found = 1
			if (releases) release[t] = 1
			if (acquires) acquire[t] = 1
			delete near[t]
		}
		if ((releases || acquires) && !found) print where ": a memory order without a [tag] that names its partner"
		releases = acquires = 0
	}

	FNR == 1 { settle(); in_comment = 0 }
	{
		cut($0)
		# A tag behind the end of a statement still belongs to it.
		tags_of(comment)
		if (!releases && !acquires) where = FILENAME ":" FNR
		if (code ~ /memory_order_(release|acq_rel|seq_cst)|__ATOMIC_(RELEASE|ACQ_REL|SEQ_CST)/) releases = 1
		if (code ~ /memory_order_(acquire|acq_rel|seq_cst)|__ATOMIC_(ACQUIRE|ACQ_REL|SEQ_CST)/) acquires = 1
		if (code ~ /[;{}][ \t]*$/) settle()
	}
	END {
		settle()
		for (t in mentioned) {
			if (!(t in release)) print mentioned[t] ": " t " has no releasing end"
			if (!(t in acquire)) print mentioned[t] ": " t " has no acquiring end"
		}
	}'
}

plant ipc/a.c 'without a [tag]' <<<'	atomic_store_explicit(&x, 1, memory_order_release);'
plant ipc/a.c '[ring-magic] has no acquiring end' <<'END'
	/* [ring-magic] release; pairs with the acquire in open() */
	atomic_store_explicit(&x, 1, memory_order_release);
END
plant ipc/a.c '[ring-magic] has no releasing end' <<'END'
	atomic_load_explicit(&x, memory_order_acquire); /* [ring-magic] pairs with the release in start() */
	atomic_store_explicit(&x, 1, memory_order_relaxed); /* [ring-magic] release, says the comment only */
END
plant ipc/a.h 'has no releasing end' <<<'/* [only-talk] release in the writer pairs with the acquire in the reader */'
plant ipc/a.c 'a.c:4: a memory order without' <<'END'
	/* [ring-magic] release and acquire */
	atomic_fetch_add_explicit(&x, 1, memory_order_acq_rel);
	y = 2;
	atomic_fetch_add_explicit(&y, 1, memory_order_acq_rel);
END
plant ipc/a.c '[phase] has no acquiring end' <<'END'
	/* [phase] release; pairs with the acquire in start(); index[phase] in code is none */
	atomic_store_explicit(&index[phase], 1, memory_order_release);
END
plant ipc/a.c <<'END'
	/*
	 * [ring-magic] release; pairs with the acquire below.
	 */
	atomic_store_explicit(&x, 1,
			      memory_order_release);
	/* memory_order_acquire in a comment is none */
	while (!atomic_load_explicit(&x, memory_order_acquire)) /* [ring-magic] pairs with the release above */
		continue;
	if (!__atomic_compare_exchange_n(&p, &q, 1, false, __ATOMIC_ACQUIRE,
					 __ATOMIC_RELAXED)) /* [phase] acquire, behind the statement's head */
		return;
	__atomic_store_n(&p, 0, __ATOMIC_RELEASE); /* [phase] release */
END

judge
