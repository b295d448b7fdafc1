/* INLINE: for bodies whose parameters are constants at every call, one copy per call so that each is compiled for its
 * constants. Builds with sanitizers do without: the copies of instrumented code would take them many minutes to
 * compile. */
#ifndef FA_CPU_KERN_INLINE_H
#define FA_CPU_KERN_INLINE_H

#define FA_SANITIZED 0
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#undef FA_SANITIZED
#define FA_SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#undef FA_SANITIZED
#define FA_SANITIZED 1
#endif

#if FA_SANITIZED
#define INLINE static inline
#else
#define INLINE static inline __attribute__((always_inline))
#endif
#define NOINLINE __attribute__((noinline))

#endif
