/* SPDX-License-Identifier: MIT */
/* Lists that double when they are full. */
#pragma once

#include <errno.h>
#include <stdlib.h>

/*
 * Room for one more behind the first @count of @list, which has room for @room, at first for @first. @list and @room are set.
 * Return: 0, -ENOMEM: nothing has changed.
 */
#define GROW(list, count, room, first)                                                                                 \
	__extension__({                                                                                                \
		int grow_error_ = 0;                                                                                   \
		if ((count) == (room)) {                                                                               \
			const typeof(room) grow_room_ = (room) ? 2 * (room) : (first);                                 \
			void *grow_list_ = NULL;                                                                       \
			if (grow_room_ > (room))                                                                       \
				grow_list_ = reallocarray((list), grow_room_, sizeof *(list));                         \
			if (grow_list_) {                                                                              \
				(list) = grow_list_;                                                                   \
				(room) = grow_room_;                                                                   \
			} else {                                                                                       \
				grow_error_ = -ENOMEM;                                                                 \
			}                                                                                              \
		}                                                                                                      \
		grow_error_;                                                                                           \
	})
