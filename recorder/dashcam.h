/* SPDX-License-Identifier: MIT */
/*
 * dashcam: an always-on flight recorder. Link with -ldashcam, include this, and say what happens:
 *
 *     #include <dashcam.h>
 *
 *     void handle(int fd, size_t n)
 *     {
 *             DC_SPAN("http.request", "conn", fd, "bytes", n);   // ends when the scope is left
 *             if (!lookup(key))
 *                     DC_INSTANT("cache.miss", "key", key);
 *             DC_LOG(DC_WARN, "conn %d closed after %s", fd, why);
 *     }
 *
 * The first event starts the recorder: a ring in shared memory that keeps the last 30 s (DASHCAM_WINDOW) in at most
 * 64 MiB (DASHCAM_MEMORY). Nothing else has to run. Whoever wants the past takes it from outside:
 * `dashcam run -- ./app`, `dashcam trigger --pid N`, or `dashcam recover` when the process is long dead.
 *
 * EVERY MACRO BELOW may be used in any thread, in signal handlers, after fork, in destructors, while threads exit. None
 * blocks, takes a lock, allocates from malloc, changes errno or fails: an event that finds no room is counted, not
 * waited for. (Two exceptions, both once: an event that finds another thread just starting the recorder waits for it,
 * about a millisecond at most, and one that finds another thread just registering its site, some microseconds. Neither
 * happens in a handler on top of that thread.) When recording is off (DASHCAM=0, no room for a
 * ring, -DDASHCAM_OFF) they do nothing.
 *
 * FATAL SIGNALS. Where SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGABRT has its default action when recording starts, a handler of
 * ours notes registers and stack of the thread it hits, and lets the process die as it would have died (DASHCAM_CRASH=0:
 * not). Threads that record and have no alternate signal stack are given one. A handler of yours, installed before or later,
 * takes precedence; calling the one before it from yours is fine.
 *
 * SAMPLING. Only when a watcher that the kernel does not let sample this process asks for it: threads that record then take a
 * timer of their CPU time and a real-time signal whose action is the default, and copy their stacks into the ring. A thread
 * that blocks that signal is let be; SA_RESTART is set. It ends when nobody asks any more.
 *
 * NAMES AND KEYS are string literals. ARGUMENTS are (key, value) pairs, at most eight: integers of any width, bool,
 * float, double, const char * (copied, all strings of one event together up to 1 KiB), any other pointer (its address),
 * DC_SECRET(value) (recorded as present, without its content). Values are not evaluated while the site is switched off.
 *
 * C11 or C++17, GCC or Clang. Cost: 1.3 to 1.5 times reading the clock and storing 8 bytes; see README.
 */
#ifndef DASHCAM_H
#define DASHCAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DC_API __attribute__((visibility("default")))

enum dc_level { DC_TRACE, DC_DEBUG, DC_INFO, DC_WARN, DC_ERROR, DC_FATAL };

/*
 * A place in the code that records; static, made by the macros. Its first 16 bytes are what an event reads.
 * The library fills @id, @known and @control at the site's first event.
 */
struct dc_site {
	const uint32_t *control; /* enable word; 0: on, bits 0 or 1 set: off, others: ask the library */
	uint16_t id;
	uint8_t known; /* 1: registered */
	uint8_t busy; /* somebody registers it */
	uint8_t kind;
	uint8_t level;
	uint8_t arg_count;
	uint8_t reserved;
	uint8_t types[8];
	const char *name;
	const char *file;
	const char *format;
	uint32_t line;
	uint32_t reserved2;
	const char *keys[8];
};

/* An open span: how deep it is and whose. All zero: not recorded, and ending it does nothing. Do not copy to another
 * thread: an end on a thread that did not begin it is ignored and counted. */
typedef struct {
	uint64_t token;
} dc_span_t;

struct dc_opts {
	size_t size; /* sizeof(struct dc_opts), set by DC_OPTS_INIT */
	uint64_t memory_bytes; /* cap of the ring, >= 512 KiB; 0: DASHCAM_MEMORY, else 64 MiB. The host may lower it: tmpfs, cgroup */
	uint64_t window_ns; /* how far back to keep; 0: DASHCAM_WINDOW, else 30 s */
	const char *name; /* of the process in captures; NULL: DASHCAM_NAME, else the kernel's */
	const char *dir; /* where the ring is made; NULL: DASHCAM_DIR, else /run/dashcam, else /dev/shm/dashcam-<uid> */
	bool ignore_environment;
};
#define DC_OPTS_INIT { sizeof(struct dc_opts), 0, 0, 0, 0, false }

/*
 * dc_start() - start recording the calling process
 * @opts: NULL for the defaults, else initialised with DC_OPTS_INIT
 *
 * Optional: the first event does it. Creates the ring of this process, at most @opts->memory_bytes large. No watcher is
 * required: one that comes later still finds everything the ring has not yet overwritten.
 *
 * Context: any thread, also a signal handler. Never waits for a watcher.
 * Return: 0, or -EALREADY if recording (or another thread is just starting), -EINVAL if @opts is malformed, -EPERM if
 * DASHCAM=0, -ENOSPC if the ring directory has no room, another -errno of making the ring. On error recording is off and
 * every DC_ macro is a no-op, so callers may ignore the result; a later dc_start() may try again.
 */
DC_API int dc_start(const struct dc_opts *opts);

/*
 * dc_stop() - stop recording; the ring stays mapped and readable, dc_start() goes on with the same ring
 * Context: any thread; events in flight in other threads may still be committed. Return: 0, -ESRCH if not recording.
 */
DC_API int dc_stop(void);

/* dc_thread_name() - name of the calling thread in captures, at most 15 bytes. Default: the kernel's. */
DC_API void dc_thread_name(const char *name);

/* dc_window() - change how far back to keep, in nanoseconds. A watcher's wish takes precedence. */
DC_API void dc_window(uint64_t window_ns);

struct dc_stats {
	size_t size; /* in: sizeof(struct dc_stats) */
	uint64_t memory_bytes; /* populated so far */
	uint64_t cap_bytes; /* size of the ring file */
	uint64_t wanted_window_ns;
	uint64_t true_window_ns; /* how far back everything is still there */
	uint64_t dropped; /* events not recorded since start */
	uint64_t misplaced_ends; /* spans ended by a thread that did not begin them, or twice */
	uint32_t lanes; /* threads recording */
	uint32_t sites;
	char ring[112]; /* path of the ring file */
};

/* dc_stats() - what the recorder of this process does. Return: 0, -ESRCH if not recording, -EINVAL: wrong size. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* in C++ of the constructor: it is a name, like stat() */
DC_API int dc_stats(struct dc_stats *ret_stats);
#pragma GCC diagnostic pop

/*
 * dc_site_new() - a site whose name is known only at run time
 * @kind: DC_SITE_SPAN, DC_SITE_INSTANT or DC_SITE_COUNTER; @name is copied; one per distinct (kind, name)
 * For dc_begin(), dc_instant(), dc_counter() below. Sites are never freed: use it for bounded sets of names (routes,
 * task types), not for request ids. Return: never NULL; beyond 4,096 names one site "(other)" for all of a kind.
 */
enum dc_site_kind { DC_SITE_SPAN = 1, DC_SITE_INSTANT = 4, DC_SITE_COUNTER = 5 };
DC_API struct dc_site *dc_site_new(enum dc_site_kind kind, const char *name);

/*
 * The macros end here: one function per number of arguments. Values are passed as 64 bits, see DC_VALUE_().
 * @odd: the site's enable word; not 0 also where an argument is a string: then the library has to look closer.
 * Beginnings return the span's token.
 */
DC_API uint64_t dc_begin0(struct dc_site *site, uint32_t odd);
DC_API uint64_t dc_begin1(struct dc_site *site, uint32_t odd, uint64_t a);
DC_API uint64_t dc_begin2(struct dc_site *site, uint32_t odd, uint64_t a, uint64_t b);
DC_API uint64_t dc_beginv(struct dc_site *site, const uint64_t *args);
DC_API void dc_end(dc_span_t span);
DC_API void dc_event0(struct dc_site *site, uint32_t odd);
DC_API void dc_event1(struct dc_site *site, uint32_t odd, uint64_t a);
DC_API void dc_event2(struct dc_site *site, uint32_t odd, uint64_t a, uint64_t b);
DC_API void dc_eventv(struct dc_site *site, const uint64_t *args);
DC_API void dc_flow(unsigned kind, uint64_t id);
DC_API void dc_trace_context(const char *traceparent);
DC_API void dc_stack(struct dc_site *site);
DC_API void dc_trigger(struct dc_site *site, const uint64_t *args);

/* Called by a constructor in every file that includes this header: a library loaded later is noted with its build-id. */
DC_API void dc_module_loaded(const void *here);

extern DC_API const uint32_t dc_control_fresh; /* always DC_ODD_: the control word of a site before its first event */
#define DC_ODD_ 0x80000000u

struct dc_secret {
	char unused;
};

#ifdef __cplusplus
}
#endif

#define DC_LIKELY_(x) __builtin_expect(!!(x), 1)
#define DC_UNLIKELY_(x) __builtin_expect(!!(x), 0)
#define DC_CAT2_(a, b) a##b
#define DC_CAT_(a, b) DC_CAT2_(a, b)

static inline dc_span_t dc_no_span_(void)
{
	dc_span_t none = { 0 };
	return none;
}

#ifdef DASHCAM_OFF

#define DC_NOTHING_(...)                                                                                               \
	do {                                                                                                           \
		if (0)                                                                                                 \
			dc_use_(0, __VA_ARGS__);                                                                       \
	} while (0)
static inline void dc_use_(int unused, ...)
{
	(void)unused;
}
#define DC_SECRET(value) ((void)sizeof(value), 0)
#define DC_SPAN(...) DC_NOTHING_(__VA_ARGS__)
#define DC_BEGIN(...) (0 ? (dc_use_(0, __VA_ARGS__), dc_no_span_()) : dc_no_span_())
#define DC_END(span) ((void)(span))
#define DC_ASYNC_BEGIN(...) DC_NOTHING_(__VA_ARGS__)
#define DC_ASYNC_END(...) DC_NOTHING_(__VA_ARGS__)
#define DC_INSTANT(...) DC_NOTHING_(__VA_ARGS__)
#define DC_COUNTER(name, value) DC_NOTHING_(name, value)
#define DC_LOG(level, ...) DC_NOTHING_(level, __VA_ARGS__)
#define DC_FLOW_OUT(id) DC_NOTHING_(id)
#define DC_FLOW_IN(id) DC_NOTHING_(id)
#define DC_TRACE_CONTEXT(traceparent) DC_NOTHING_(traceparent)
#define DC_STACK(name) DC_NOTHING_(name)
#define DC_TRIGGER(...) DC_NOTHING_(__VA_ARGS__)
static inline int dc_off_(int error)
{
	return error;
}
#define dc_start(opts) ((void)(opts), dc_off_(-1))
#define dc_stop() dc_off_(-3)
#define dc_thread_name(name) ((void)(name))
#define dc_window(window_ns) ((void)(window_ns))
#define dc_stats(ret_stats) ((void)(ret_stats), dc_off_(-3))
#define dc_site_new(kind, name) ((void)(name), (struct dc_site *)0)
#define dc_begin(site) ((void)(site), dc_no_span_())
#define dc_instant(site) ((void)(site))
#define dc_counter(site, value) ((void)(site), (void)(value))

#else

/*
 * ---- values and their types ----
 *
 * A value is passed as it is recorded, so that what is done to it is done where its type is known: signed integers as
 * zigzag (small negative numbers stay short), floating point with its bytes swapped (round numbers have zeros at the low
 * end), anything else as it is.
 */

static inline uint64_t dc_value_n_(int v)
{
	return (uint32_t)v << 1 ^ (uint32_t)(v >> 31);
}
static inline uint64_t dc_value_i_(long long v)
{
	return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}
static inline uint64_t dc_value_f_(double v)
{
	uint64_t u;
	__builtin_memcpy(&u, &v, sizeof u);
	return __builtin_bswap64(u);
}

#ifdef __cplusplus

#include <cstring>
#include <type_traits>

static inline struct dc_secret dc_secret_(void)
{
	return dc_secret{ 0 };
}
#define DC_SECRET(value) ((void)sizeof(value), dc_secret_())

template <typename T> constexpr uint8_t dc_type_of_()
{
	using V = std::decay_t<T>;
	if constexpr (std::is_same_v<V, bool>)
		return 4;
	else if constexpr (std::is_enum_v<V>)
		return dc_type_of_<std::underlying_type_t<V>>();
	else if constexpr (std::is_floating_point_v<V>)
		return 3;
	else if constexpr (std::is_integral_v<V>)
		return std::is_signed_v<V> ? 2 : 1;
	else if constexpr (std::is_same_v<V, char *> || std::is_same_v<V, const char *>)
		return 6;
	else if constexpr (std::is_same_v<V, dc_secret>)
		return 7;
	else
		return 5;
}

template <typename T> static inline uint64_t dc_value_(const T &v)
{
	using V = std::decay_t<T>;
	static_assert(std::is_scalar_v<V> || std::is_same_v<V, dc_secret>,
		      "dashcam records integers, bool, floating point, const char *, pointers and DC_SECRET()");
	if constexpr (std::is_floating_point_v<V>) {
		return dc_value_f_(static_cast<double>(v));
	} else if constexpr (std::is_same_v<V, dc_secret> || std::is_null_pointer_v<V>) {
		return 0;
	} else if constexpr (std::is_array_v<T>) {
		return reinterpret_cast<uint64_t>(&v[0]);
	} else if constexpr (std::is_pointer_v<V>) {
		return reinterpret_cast<uint64_t>(v);
	} else if constexpr (dc_type_of_<V>() != 2) {
		return static_cast<uint64_t>(v);
	} else if constexpr (sizeof(V) <= sizeof(int)) {
		return dc_value_n_(static_cast<int>(v));
	} else {
		return dc_value_i_(static_cast<long long>(v));
	}
}
#define DC_TYPE_(v) dc_type_of_<decltype(v)>()
#define DC_VALUE_(v) dc_value_(v)

#else

#define DC_SECRET(value) ((void)sizeof(value), (struct dc_secret){ 0 })

static inline uint64_t dc_value_u_(unsigned long long v)
{
	return v;
}
static inline uint64_t dc_value_p_(const volatile void *v)
{
	return (uint64_t)(uintptr_t)v;
}
static inline uint64_t dc_value_s_(struct dc_secret v)
{
	(void)v;
	return 0;
}

#define DC_GENERIC_(v, narrow, integer, natural, boolean, real, text, secret, other)                                   \
	_Generic((v),                                                                                                  \
		char: narrow,                                                                                          \
		signed char: narrow,                                                                                   \
		short: narrow,                                                                                         \
		int: narrow,                                                                                           \
		long: integer,                                                                                         \
		long long: integer,                                                                                    \
		unsigned char: natural,                                                                                \
		unsigned short: natural,                                                                               \
		unsigned int: natural,                                                                                 \
		unsigned long: natural,                                                                                \
		unsigned long long: natural,                                                                           \
		bool: boolean,                                                                                         \
		float: real,                                                                                           \
		double: real,                                                                                          \
		char *: text,                                                                                          \
		const char *: text,                                                                                    \
		struct dc_secret: secret,                                                                              \
		default: other)
#define DC_TYPE_(v) DC_GENERIC_(v, 2, 2, 1, 4, 3, 6, 7, 5)
#define DC_VALUE_(v)                                                                                                   \
	DC_GENERIC_(v, dc_value_n_, dc_value_i_, dc_value_u_, dc_value_u_, dc_value_f_, dc_value_p_, dc_value_s_,      \
		    dc_value_p_)(v)

#endif

/* The enable word of an event with these arguments: strings and secrets are not for the fast path. */
#define DC_ODD_0_(...) dc_word_
#define DC_ODD_1_(a) (DC_TYPE_(a) < 6 ? dc_word_ : DC_ODD_)
#define DC_ODD_2_(a, b) (DC_TYPE_(a) < 6 && DC_TYPE_(b) < 6 ? dc_word_ : DC_ODD_)

/* ---- (key, value) pairs: how many, their keys, types and values. The name leads the list: 1, 3, 5 ... 17 items ---- */

#define DC_PICK18_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, N, ...) N
#define DC_PAIRS_(...) DC_PICK18_(__VA_ARGS__, 8, ODD, 7, ODD, 6, ODD, 5, ODD, 4, ODD, 3, ODD, 2, ODD, 1, ODD, 0, ~)
#define DC_NAME_(name, ...) name

#define DC_KEYS_0(n) 0
#define DC_KEYS_1(n, k, v) k
#define DC_KEYS_2(n, k, v, ...) k, DC_KEYS_1(n, __VA_ARGS__)
#define DC_KEYS_3(n, k, v, ...) k, DC_KEYS_2(n, __VA_ARGS__)
#define DC_KEYS_4(n, k, v, ...) k, DC_KEYS_3(n, __VA_ARGS__)
#define DC_KEYS_5(n, k, v, ...) k, DC_KEYS_4(n, __VA_ARGS__)
#define DC_KEYS_6(n, k, v, ...) k, DC_KEYS_5(n, __VA_ARGS__)
#define DC_KEYS_7(n, k, v, ...) k, DC_KEYS_6(n, __VA_ARGS__)
#define DC_KEYS_8(n, k, v, ...) k, DC_KEYS_7(n, __VA_ARGS__)
#define DC_TYPES_0(n) 0
#define DC_TYPES_1(n, k, v) DC_TYPE_(v)
#define DC_TYPES_2(n, k, v, ...) DC_TYPE_(v), DC_TYPES_1(n, __VA_ARGS__)
#define DC_TYPES_3(n, k, v, ...) DC_TYPE_(v), DC_TYPES_2(n, __VA_ARGS__)
#define DC_TYPES_4(n, k, v, ...) DC_TYPE_(v), DC_TYPES_3(n, __VA_ARGS__)
#define DC_TYPES_5(n, k, v, ...) DC_TYPE_(v), DC_TYPES_4(n, __VA_ARGS__)
#define DC_TYPES_6(n, k, v, ...) DC_TYPE_(v), DC_TYPES_5(n, __VA_ARGS__)
#define DC_TYPES_7(n, k, v, ...) DC_TYPE_(v), DC_TYPES_6(n, __VA_ARGS__)
#define DC_TYPES_8(n, k, v, ...) DC_TYPE_(v), DC_TYPES_7(n, __VA_ARGS__)
#define DC_VALUES_0(n) 0
#define DC_VALUES_1(n, k, v) DC_VALUE_(v)
#define DC_VALUES_2(n, k, v, ...) DC_VALUE_(v), DC_VALUES_1(n, __VA_ARGS__)
#define DC_VALUES_3(n, k, v, ...) DC_VALUE_(v), DC_VALUES_2(n, __VA_ARGS__)
#define DC_VALUES_4(n, k, v, ...) DC_VALUE_(v), DC_VALUES_3(n, __VA_ARGS__)
#define DC_VALUES_5(n, k, v, ...) DC_VALUE_(v), DC_VALUES_4(n, __VA_ARGS__)
#define DC_VALUES_6(n, k, v, ...) DC_VALUE_(v), DC_VALUES_5(n, __VA_ARGS__)
#define DC_VALUES_7(n, k, v, ...) DC_VALUE_(v), DC_VALUES_6(n, __VA_ARGS__)
#define DC_VALUES_8(n, k, v, ...) DC_VALUE_(v), DC_VALUES_7(n, __VA_ARGS__)

#define DC_SITE_INIT_(kind, level, count, name, format, types, keys)                                                   \
	{ &dc_control_fresh, 0, 0, 0, kind, level, count, 0, types, name, __FILE__, format, __LINE__, 0, keys }
#define DC_BRACED_(...) { __VA_ARGS__ }
#define DC_SITE_PAIRS_(kind, n, ...)                                                                                   \
	static struct dc_site dc_site_ =                                                                               \
		DC_SITE_INIT_(kind, 0, n, DC_NAME_(__VA_ARGS__, ~), 0, DC_BRACED_(DC_CAT_(DC_TYPES_, n)(__VA_ARGS__)), \
			      DC_BRACED_(DC_CAT_(DC_KEYS_, n)(__VA_ARGS__)))
/* The pointer moves at the site's first event; the word is set from outside at any time, nothing hangs on it: relaxed. */
static inline uint32_t dc_control_of_(const struct dc_site *site)
{
	/* [site-control] acquire; pairs with the release in register_elected(): who sees a word 0 sees the id */
	const uint32_t *control = __atomic_load_n(&site->control, __ATOMIC_ACQUIRE);
	return __atomic_load_n(control, __ATOMIC_RELAXED);
}
#define DC_ON_(word) DC_LIKELY_(((word) & 3u) == 0)

/* Bodies in the library; -DDC_INLINE puts the two commonest into the caller (faster by a call, larger by a factor). */
#ifdef DC_INLINE
#include "dashcam_inline.h"
#define DC_FN_(name) name##_inline
#else
#define DC_FN_(name) name
#endif

#define DC_BEGIN_0_(...) DC_FN_(dc_begin0)(dc_at_, dc_word_)
#define DC_BEGIN_1_(name, k, a) DC_FN_(dc_begin1)(dc_at_, DC_ODD_1_(a), DC_VALUE_(a))
#define DC_BEGIN_2_(name, k, a, l, b) DC_FN_(dc_begin2)(dc_at_, DC_ODD_2_(a, b), DC_VALUE_(a), DC_VALUE_(b))
#define DC_BEGIN_V_(n, ...)                                                                                            \
	__extension__({                                                                                                \
		const uint64_t dc_args_[] = { DC_VALUES_##n(__VA_ARGS__) };                                            \
		dc_beginv(dc_at_, dc_args_);                                                                           \
	})
#define DC_BEGIN_3_(...) DC_BEGIN_V_(3, __VA_ARGS__)
#define DC_BEGIN_4_(...) DC_BEGIN_V_(4, __VA_ARGS__)
#define DC_BEGIN_5_(...) DC_BEGIN_V_(5, __VA_ARGS__)
#define DC_BEGIN_6_(...) DC_BEGIN_V_(6, __VA_ARGS__)
#define DC_BEGIN_7_(...) DC_BEGIN_V_(7, __VA_ARGS__)
#define DC_BEGIN_8_(...) DC_BEGIN_V_(8, __VA_ARGS__)
#define DC_EVENT_0_(...) dc_event0(&dc_site_, dc_word_)
#define DC_EVENT_1_(name, k, a) dc_event1(&dc_site_, DC_ODD_1_(a), DC_VALUE_(a))
#define DC_EVENT_2_(name, k, a, l, b) dc_event2(&dc_site_, DC_ODD_2_(a, b), DC_VALUE_(a), DC_VALUE_(b))
#define DC_EVENT_V_(n, ...)                                                                                            \
	__extension__({                                                                                                \
		const uint64_t dc_args_[] = { DC_VALUES_##n(__VA_ARGS__) };                                            \
		dc_eventv(&dc_site_, dc_args_);                                                                        \
	})
#define DC_EVENT_3_(...) DC_EVENT_V_(3, __VA_ARGS__)
#define DC_EVENT_4_(...) DC_EVENT_V_(4, __VA_ARGS__)
#define DC_EVENT_5_(...) DC_EVENT_V_(5, __VA_ARGS__)
#define DC_EVENT_6_(...) DC_EVENT_V_(6, __VA_ARGS__)
#define DC_EVENT_7_(...) DC_EVENT_V_(7, __VA_ARGS__)
#define DC_EVENT_8_(...) DC_EVENT_V_(8, __VA_ARGS__)

static inline void dc_span_cleanup_(dc_span_t *span)
{
	if (DC_LIKELY_(span->token))
		DC_FN_(dc_end)(*span);
}

/*
 * The empty asm hides that a site switched off gives token 0 (the compiler would copy the rest of the scope for it) and
 * where the site is (it would compute the address twice).
 */
#define DC_BEGIN_N_(n, ...)                                                                                            \
	__extension__({                                                                                                \
		DC_SITE_PAIRS_(1, n, __VA_ARGS__);                                                                     \
		dc_span_t dc_begun_ = dc_no_span_();                                                                   \
		struct dc_site *dc_at_ = &dc_site_;                                                                    \
		__asm__("" : "+r"(dc_begun_.token), "+r"(dc_at_));                                                     \
		const uint32_t dc_word_ = dc_control_of_(dc_at_);                                                      \
		if (DC_ON_(dc_word_))                                                                                  \
			dc_begun_.token = DC_CAT_(DC_CAT_(DC_BEGIN_, n), _)(__VA_ARGS__);                              \
		dc_begun_;                                                                                             \
	})
#define DC_EVENT_N_(kind, n, ...)                                                                                      \
	do {                                                                                                           \
		DC_SITE_PAIRS_(kind, n, __VA_ARGS__);                                                                  \
		const uint32_t dc_word_ = dc_control_of_(&dc_site_);                                                   \
		if (DC_ON_(dc_word_))                                                                                  \
			DC_CAT_(DC_CAT_(DC_EVENT_, n), _)(__VA_ARGS__);                                                \
	} while (0)

/* ---- what you use ---- */

/* A span over the rest of the enclosing scope: DC_SPAN("db.query", "id", id, "table", name); */
#define DC_SPAN(...)                                                                                                   \
	__attribute__((cleanup(dc_span_cleanup_), unused)) dc_span_t DC_CAT_(dc_span_, __LINE__) =                     \
		DC_BEGIN(__VA_ARGS__)

/* dc_span_t s = DC_BEGIN("db.query", "id", id); ... DC_END(s);  An end below the innermost open span closes what lies
 * above it too, marked as implied (longjmp, exceptions in C, a forgotten end). */
#define DC_BEGIN(...) DC_BEGIN_N_(DC_PAIRS_(__VA_ARGS__), __VA_ARGS__)
#define DC_END(span) DC_FN_(dc_end)(span)

/* Work that begins on one thread and may end on another, or overlaps its like: told apart by @id. */
#define DC_ASYNC_BEGIN(...) DC_ASYNC_(7, __VA_ARGS__, ~)
#define DC_ASYNC_END(...) DC_ASYNC_(8, __VA_ARGS__, ~)
#define DC_ASYNC_(kind, name, id, ...) DC_ASYNC_REST_(kind, name, id, __VA_ARGS__)
#define DC_ASYNC_REST_(kind, name, id, ...)                                                                            \
	DC_CAT_(DC_ASYNC_N_, DC_ASYNC_COUNT_(__VA_ARGS__))(kind, name, id, __VA_ARGS__)
/* the list ends in a ~, so n pairs make 2n + 1 items */
#define DC_ASYNC_COUNT_(...)                                                                                           \
	DC_PICK18_(__VA_ARGS__, 8, ODD, 7, ODD, 6, ODD, 5, ODD, 4, ODD, 3, ODD, 2, ODD, 1, ODD, 0, ~)
#define DC_ASYNC_N_0(kind, name, id, z) DC_EVENT_N_(kind, 1, name, "id", id)
#define DC_ASYNC_N_1(kind, name, id, a, b, z) DC_EVENT_N_(kind, 2, name, "id", id, a, b)
#define DC_ASYNC_N_2(kind, name, id, a, b, c, d, z) DC_EVENT_N_(kind, 3, name, "id", id, a, b, c, d)
#define DC_ASYNC_N_3(kind, name, id, a, b, c, d, e, f, z) DC_EVENT_N_(kind, 4, name, "id", id, a, b, c, d, e, f)
#define DC_ASYNC_N_4(kind, name, id, a, b, c, d, e, f, g, h, z)                                                        \
	DC_EVENT_N_(kind, 5, name, "id", id, a, b, c, d, e, f, g, h)
#define DC_ASYNC_N_5(kind, name, id, a, b, c, d, e, f, g, h, i, j, z)                                                  \
	DC_EVENT_N_(kind, 6, name, "id", id, a, b, c, d, e, f, g, h, i, j)
#define DC_ASYNC_N_6(kind, name, id, a, b, c, d, e, f, g, h, i, j, k, l, z)                                            \
	DC_EVENT_N_(kind, 7, name, "id", id, a, b, c, d, e, f, g, h, i, j, k, l)
#define DC_ASYNC_N_7(kind, name, id, a, b, c, d, e, f, g, h, i, j, k, l, m, n, z)                                      \
	DC_EVENT_N_(kind, 8, name, "id", id, a, b, c, d, e, f, g, h, i, j, k, l, m, n)

/* A moment. */
#define DC_INSTANT(...) DC_INSTANT_N_(DC_PAIRS_(__VA_ARGS__), __VA_ARGS__)
#define DC_INSTANT_N_(n, ...) DC_EVENT_N_(4, n, __VA_ARGS__)

/* A number that changes over time. */
#define DC_COUNTER(name, value) DC_EVENT_N_(5, 1, name, "value", value)

/*
 * A log line: DC_LOG(DC_WARN, "conn %d closed after %s", fd, why). The format must be a literal; only the arguments (at
 * most eight) are recorded, the text is made when somebody reads it.
 */
#define DC_LOG(level, ...) DC_LOG_N_(DC_LOG_COUNT_(__VA_ARGS__), level, __VA_ARGS__)
#define DC_LOG_COUNT_(...) DC_PICK10_(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1, 0, ~)
#define DC_PICK10_(a, b, c, d, e, f, g, h, i, N, ...) N
#define DC_LOG_N_(n, level, ...) DC_CAT_(DC_LOG_, n)(n, level, __VA_ARGS__)
#define DC_LOG_0(n, level, f) DC_LOG_1_(n, level, f, 0, (f), dc_event0(&dc_site_, dc_word_))
#define DC_LOG_1(n, level, f, a)                                                                                       \
	DC_LOG_1_(n, level, f, DC_TYPE_(a), (f, a), dc_event1(&dc_site_, DC_ODD_1_(a), DC_VALUE_(a)))
#define DC_LOG_2(n, level, f, a, b)                                                                                    \
	DC_LOG_2_(n, level, f, (f, a, b), dc_event2(&dc_site_, DC_ODD_2_(a, b), DC_VALUE_(a), DC_VALUE_(b)),           \
		  DC_TYPE_(a), DC_TYPE_(b))
#define DC_LOG_3(n, level, f, a, b, c)                                                                                 \
	DC_LOG_V_(n, level, f, (f, a, b, c), DC_BRACED_(DC_VALUE_(a), DC_VALUE_(b), DC_VALUE_(c)), DC_TYPE_(a),        \
		  DC_TYPE_(b), DC_TYPE_(c))
#define DC_LOG_4(n, level, f, a, b, c, d)                                                                              \
	DC_LOG_V_(n, level, f, (f, a, b, c, d),                                                                        \
		  DC_BRACED_(DC_VALUE_(a), DC_VALUE_(b), DC_VALUE_(c), DC_VALUE_(d)), DC_TYPE_(a), DC_TYPE_(b),        \
		  DC_TYPE_(c), DC_TYPE_(d))
#define DC_LOG_5(n, level, f, a, b, c, d, e)                                                                           \
	DC_LOG_V_(n, level, f, (f, a, b, c, d, e),                                                                     \
		  DC_BRACED_(DC_VALUE_(a), DC_VALUE_(b), DC_VALUE_(c), DC_VALUE_(d), DC_VALUE_(e)), DC_TYPE_(a),       \
		  DC_TYPE_(b), DC_TYPE_(c), DC_TYPE_(d), DC_TYPE_(e))
#define DC_LOG_6(n, level, f, a, b, c, d, e, g)                                                                        \
	DC_LOG_V_(n, level, f, (f, a, b, c, d, e, g),                                                                  \
		  DC_BRACED_(DC_VALUE_(a), DC_VALUE_(b), DC_VALUE_(c), DC_VALUE_(d), DC_VALUE_(e), DC_VALUE_(g)),      \
		  DC_TYPE_(a), DC_TYPE_(b), DC_TYPE_(c), DC_TYPE_(d), DC_TYPE_(e), DC_TYPE_(g))
#define DC_LOG_7(n, level, f, a, b, c, d, e, g, h)                                                                     \
	DC_LOG_V_(n, level, f, (f, a, b, c, d, e, g, h),                                                               \
		  DC_BRACED_(DC_VALUE_(a), DC_VALUE_(b), DC_VALUE_(c), DC_VALUE_(d), DC_VALUE_(e), DC_VALUE_(g),       \
			     DC_VALUE_(h)),                                                                            \
		  DC_TYPE_(a), DC_TYPE_(b), DC_TYPE_(c), DC_TYPE_(d), DC_TYPE_(e), DC_TYPE_(g), DC_TYPE_(h))
#define DC_LOG_8(n, level, f, a, b, c, d, e, g, h, i)                                                                  \
	DC_LOG_V_(n, level, f, (f, a, b, c, d, e, g, h, i),                                                            \
		  DC_BRACED_(DC_VALUE_(a), DC_VALUE_(b), DC_VALUE_(c), DC_VALUE_(d), DC_VALUE_(e), DC_VALUE_(g),       \
			     DC_VALUE_(h), DC_VALUE_(i)),                                                              \
		  DC_TYPE_(a), DC_TYPE_(b), DC_TYPE_(c), DC_TYPE_(d), DC_TYPE_(e), DC_TYPE_(g), DC_TYPE_(h),           \
		  DC_TYPE_(i))
#define DC_LOG_1_(n, level, f, type, check, call) DC_LOG_2_(n, level, f, check, call, type)
#define DC_LOG_2_(n, level, f, check, call, ...)                                                                       \
	do {                                                                                                           \
		static struct dc_site dc_site_ =                                                                       \
			DC_SITE_INIT_(6, level, n, f, f, DC_BRACED_(__VA_ARGS__), DC_BRACED_(0));                      \
		if (0)                                                                                                 \
			dc_check_format_ check;                                                                        \
		const uint32_t dc_word_ = dc_control_of_(&dc_site_);                                                   \
		if (DC_ON_(dc_word_))                                                                                  \
			call;                                                                                          \
	} while (0)
#define DC_LOG_V_(n, level, f, check, values, ...)                                                                     \
	DC_LOG_2_(n, level, f, check,                                                                                  \
		  __extension__({                                                                                      \
			  const uint64_t dc_args_[] = values;                                                          \
			  dc_eventv(&dc_site_, dc_args_);                                                              \
		  }),                                                                                                  \
		  __VA_ARGS__)
__attribute__((format(printf, 1, 2))) static inline void dc_check_format_(const char *format, ...)
{
	(void)format;
}

/* Who woke whom: the same id where work leaves and where it arrives; also across processes. */
#define DC_FLOW_OUT(id) dc_flow(9, (uint64_t)(id))
#define DC_FLOW_IN(id) dc_flow(10, (uint64_t)(id))

/* W3C trace context of the work this thread does now: "00-<32 hex>-<16 hex>-<2 hex>". Malformed ones are ignored. */
#define DC_TRACE_CONTEXT(traceparent) dc_trace_context(traceparent)

/*
 * Who called: return addresses of this thread by frame pointers, at most 30. Where these do not lead to main() or to a thread's
 * start (-fomit-frame-pointer), registers and up to 8 KiB of the stack are copied into the ring, too, to be unwound when it is
 * read: a burst of 64, then about a hundred a second; DASHCAM_STACKS=fp: never, =copy: always.
 */
#define DC_STACK(name)                                                                                                 \
	do {                                                                                                           \
		DC_SITE_PAIRS_(12, 0, name);                                                                           \
		if (DC_ON_(dc_control_of_(&dc_site_)))                                                                 \
			dc_stack(&dc_site_);                                                                           \
	} while (0)

/* Save the past now: DC_TRIGGER("checkout failed", "order", id). Returns at once; a watcher does the saving. */
#define DC_TRIGGER(...) DC_TRIGGER_N_(DC_PAIRS_(__VA_ARGS__), __VA_ARGS__)
#define DC_TRIGGER_N_(n, ...)                                                                                          \
	do {                                                                                                           \
		DC_SITE_PAIRS_(13, n, __VA_ARGS__);                                                                    \
		if (DC_ON_(dc_control_of_(&dc_site_))) {                                                               \
			const uint64_t dc_args_[] = { DC_CAT_(DC_VALUES_, n)(__VA_ARGS__) };                           \
			dc_trigger(&dc_site_, dc_args_);                                                               \
		}                                                                                                      \
	} while (0)

#ifndef DC_INSIDE_ /* the library itself */
/* one in each library and program, whatever it is linked from: fresh each time a library is loaded */
__attribute__((weak, visibility("hidden"))) char dc_module_noted_;
static const char dc_here_ = 0;
__attribute__((constructor, used)) static void dc_module_note_(void)
{
	if (!dc_module_noted_)
		dc_module_loaded(&dc_here_);
	dc_module_noted_ = 1;
}
#endif

/* Sites made at run time by dc_site_new(). */
static inline dc_span_t dc_begin(struct dc_site *site)
{
	dc_span_t span = dc_no_span_();
	const uint32_t word = dc_control_of_(site);
	if (DC_ON_(word))
		span.token = dc_begin0(site, word);
	return span;
}
static inline void dc_instant(struct dc_site *site)
{
	const uint32_t word = dc_control_of_(site);
	if (DC_ON_(word))
		dc_event0(site, word);
}
static inline void dc_counter(struct dc_site *site, int64_t value)
{
	const uint32_t word = dc_control_of_(site);
	if (DC_ON_(word))
		dc_event1(site, word, dc_value_i_(value));
}

#endif /* DASHCAM_OFF */
#endif /* DASHCAM_H */
