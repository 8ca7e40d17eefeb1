/* SPDX-License-Identifier: MIT */
/* --help, from the tables of the commands. */
#include "tools/command.h"

#include <string.h>

#define WIDTH 96

/* Words of @text, wrapped; lines after the first are indented by @indent. A blank line stays, so does "\n  ". */
static void wrapped(FILE *out, const char *text, int indent)
{
	int column = indent;

	for (const char *s = text; *s;) {
		int length = (int)strcspn(s, " \n");

		if (length > 0) {
			if (column > indent && column + 1 + length > WIDTH) {
				fprintf(out, "\n%*s", indent, "");
				column = indent;
			} else if (column > indent) {
				putc(' ', out);
				column++;
			}
			fwrite(s, 1, (size_t)length, out);
			column += length;
		}
		s += length;
		if (s[0] == '\n' && s[1] == '\n') {
			fprintf(out, "\n\n%*s", indent, "");
			column = indent;
		}
		s += strspn(s, " \n");
	}
	putc('\n', out);
}

static void help_option(FILE *out, const struct option *o)
{
	char head[64], text[512];
	int at = 0;

	if (o->letter)
		at = snprintf(head, sizeof(head), "-%c, ", o->letter);
	snprintf(head + at, sizeof(head) - (size_t)at, "--%s%s%s", o->name, o->value ? " " : "",
		 o->value ? o->value : "");
	snprintf(text, sizeof(text), "%s%s%s%s", o->help, o->fallback ? " (" : "",
		 o->fallback ? o->fallback : "", o->fallback ? ")" : "");
	fprintf(out, "  %-21s ", head);
	if (strlen(head) > 21)
		fprintf(out, "\n%24s", "");
	wrapped(out, text, 24);
}

static void help_examples(FILE *out, const char *examples)
{
	fputs("\nExamples:\n", out);
	for (const char *line = examples; *line;) {
		int command = (int)strcspn(line, "\t"), comment = (int)strcspn(line + command, "\n");

		fprintf(out, "  %.*s\n      %.*s\n", command, line, comment - 1, line + command + 1);
		line += command + comment + 1;
	}
}

void help_command(FILE *out, const struct command *c)
{
	bool has_options = c->options->name;

	fprintf(out, "dashcam %s: %s\n\nUsage: dashcam %s%s%s%s\n\n", c->name, c->summary, c->name,
		has_options ? " [OPTION...]" : "", *c->usage ? " " : "", c->usage);
	wrapped(out, c->about, 0);
	fputs("\nOptions:\n", out);
	for (const struct option *o = c->options; o->name; o++)
		help_option(out, o);
	fprintf(out, "  %-21s %s\n", "-h, --help", "show this text");
	if (c->examples)
		help_examples(out, c->examples);
	fprintf(out, "\nMore: man dashcam-%s\n", c->name);
}

void help_overview(FILE *out)
{
	fputs("dashcam keeps the last seconds of what your programs did, and saves them when something "
	      "happens.\n\n"
	      "Usage: dashcam COMMAND [OPTION...] [ARGUMENT...]\n\nCommands:\n",
	      out);
	for (unsigned i = 0; commands[i]; i++)
		fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\nFirst steps:\n"
	      "  dashcam run -- ./my-server       record it; when it dies by a signal, its past is saved\n"
	      "  dashcam trigger --all --wait     save the past now, print the file\n"
	      "  dashcam show FILE --from -5s     the last five seconds before the trigger\n\n"
	      "'dashcam COMMAND --help' explains a command, 'man dashcam' the whole.\n",
	      out);
}
