/* SPDX-License-Identifier: MIT */
/* A program that does nothing, with libdashcam.so and without: what its constructors cost (bench_hotpath_load.c). */
#ifdef WITH
#include "recorder/dashcam.h"
#endif

int main(int argc, char **argv)
{
	(void)argv;
#ifdef WITH
	if (argc > 1) /* never: the linker must not leave the library out */
		return dc_stop();
#endif
	return argc > 1;
}
