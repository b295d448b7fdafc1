/* Picks the kernels for this machine: CPUID (x86, with the operating system's consent to the wide registers) or the
 * build's baseline (arm). */
#include "backend/cpu/kern.h"

#include <string.h>

typedef struct isa_level {
    const char *name;
    bool (*present)(void);
    void (*init)(fa_kernels *k);
    bool by_name; /* taken only when `limit` names it */
} isa_level;

static bool always(void) { return true; }
#define INIT(isa)                                                                                                      \
    static void init_##isa(fa_kernels *k) {                                                                            \
        fa_kern_unpack_init_##isa(k);                                                                                  \
        fa_kern_linear_init_##isa(k);                                                                                  \
        fa_kern_vec_init_##isa(k);                                                                                     \
    }
INIT(c)
#if defined(__x86_64__)
INIT(avx2)
INIT(avx512)
INIT(avx512vnni)
/* The compiler's helper reads CPUID and XCR0. */
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static bool has_avx512vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
static bool has_avx512bf16(void) { return has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }
/* avx512bf16 by name only: on the Intel server core that was measured, vdpbf16ps runs at a quarter of the rate of the
 * f32 fma, which is half the products although each lane does two. */
static const isa_level levels[] = {{"c", always, init_c, false},
                                   {"avx2", has_avx2, init_avx2, false},
                                   {"avx512", has_avx512, init_avx512, false},
                                   {"avx512vnni", has_avx512vnni, init_avx512vnni, false},
                                   {"avx512bf16", has_avx512bf16, fa_kern_linear_init_avx512bf16, true}};
#elif defined(__aarch64__)
INIT(neon)
static const isa_level levels[] = {{"c", always, init_c, false}, {"neon", always, init_neon, false}};
#else
static const isa_level levels[] = {{"c", always, init_c, false}};
#endif

int fa_kernels_init(fa_kernels *k, const char *limit, fa_error *err) {
    const size_t n = sizeof levels / sizeof levels[0];
    size_t last = n - 1;
    if (limit && *limit) {
        for (last = 0; last < n && strcmp(levels[last].name, limit); last++) {
        }
        if (last == n)
            return fa_fail(err, FFAI_EINVAL, "FFAI_CPU=%s: this build knows c%s", limit,
                           n > 2   ? ", avx2, avx512, avx512vnni, avx512bf16"
                           : n > 1 ? ", neon"
                                   : "");
        if (!levels[last].present())
            return fa_fail(err, FFAI_ENOTSUP, "FFAI_CPU=%s: this machine does not have it", limit);
    } else {
        while (levels[last].by_name) last--;
    }
    memset(k, 0, sizeof *k);
    for (size_t i = 0; i <= last; i++) {
        if (!levels[i].present()) break;
        levels[i].init(k);
        k->isa = levels[i].name;
    }
    return 0;
}
