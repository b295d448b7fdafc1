/* Picks the kernels for this machine: CPUID (x86, with the operating system's consent to the wide registers) or what
 * the kernel says of the processor (arm: the auxiliary vector of Linux, sysctl of macOS; elsewhere the build's
 * baseline). */
#define _DEFAULT_SOURCE /* syscall */
#include "backend/cpu/kern.h"

#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

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
/* Tables of compilers do not know it: leaf 7, subleaf 1, EAX bit 4. The registers are AVX2's. */
static bool has_avxvnni(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return has_avx2() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
           (a >> 4 & 1);
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static bool has_avx512vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
static bool has_avx512bf16(void) { return has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }
/* Tiles of int8 and bf16: leaf 7, EDX bits 24, 25 and 22. The system must save their registers (XCR0 bits 17 and 18)
 * and lets only processes use them that have asked (18: the number of the tile data). The permission belongs to the
 * process and to threads to come, and asking again is free: nothing has to be kept here. */
static bool has_amx(void) {
#if defined(__linux__)
    enum { REQUEST = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18 };
    const unsigned tiles = 1u << 22 | 1u << 24 | 1u << 25, saved = 3u << 17;
    unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0;
    if (!has_avx512vnni() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & tiles) != tiles) return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); /* AVX2 was there, so OSXSAVE is */
    return (low & saved) == saved && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}
/* amxint8 by name only: sums must leave the tiles every 32 columns for their scales, and on the Xeon that was measured
 * its prompts took 1.4 times as long as those of avx512vnni, while bf16 tiles took a quarter of the f32 kernel's time.
 * avx512bf16 by name only: on the Intel server core that was measured, vdpbf16ps runs at a quarter of the rate of the
 * f32 fma, which is half the products although each lane does two. */
static const isa_level levels[] = {{"c", always, init_c, false},
                                   {"avx2", has_avx2, init_avx2, false},
                                   {"avxvnni", has_avxvnni, fa_kern_linear_init_avxvnni, false},
                                   {"avx512", has_avx512, init_avx512, false},
                                   {"avx512vnni", has_avx512vnni, init_avx512vnni, false},
                                   {"avx512bf16", has_avx512bf16, fa_kern_linear_init_avx512bf16, true},
                                   {"amx", has_amx, fa_kern_linear_init_amx, false},
                                   {"amxint8", has_amx, fa_kern_linear_init_amxint8, true}};
#elif defined(__aarch64__)
INIT(neon)
/* A feature by its bit in an entry of the auxiliary vector (the kernel's ABI, written out because old headers lack the
 * names), or by the name that macOS gives it. */
static bool has(unsigned long entry, int bit, const char *name) {
#if defined(__linux__)
    (void)name;
    return getauxval(entry) >> bit & 1;
#elif defined(__APPLE__)
    int value = 0;
    size_t size = sizeof value;
    (void)entry, (void)bit;
    return !sysctlbyname(name, &value, &size, NULL, 0) && value;
#else
    (void)entry, (void)bit, (void)name;
    return false;
#endif
}
enum { HWCAP = 16, HWCAP2 = 26 };
static bool has_neondot(void) { return has(HWCAP, 20, "hw.optional.arm.FEAT_DotProd"); }
static bool has_neoni8mm(void) { return has_neondot() && has(HWCAP2, 13, "hw.optional.arm.FEAT_I8MM"); }
static bool has_neonbf16(void) { return has_neoni8mm() && has(HWCAP2, 14, "hw.optional.arm.FEAT_BF16"); }
/* neonbf16 by name only: it rounds activations, and no machine was there to measure what that buys. */
static const isa_level levels[] = {{"c", always, init_c, false},
                                   {"neon", always, init_neon, false},
                                   {"neondot", has_neondot, fa_kern_linear_init_neondot, false},
                                   {"neoni8mm", has_neoni8mm, fa_kern_linear_init_neoni8mm, false},
                                   {"neonbf16", has_neonbf16, fa_kern_linear_init_neonbf16, true}};
#else
static const isa_level levels[] = {{"c", always, init_c, false}};
#endif

enum { N_LEVEL = sizeof levels / sizeof levels[0] };

const char *fa_kernels_level(size_t i) { return i < N_LEVEL ? levels[i].name : NULL; }

static int unknown_level(const char *limit, fa_error *err) {
    char known[128] = "";
    for (size_t i = 0, at = 0; i < N_LEVEL && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", levels[i].name);
    return fa_fail(err, FFAI_EINVAL, "FFAI_CPU=%s: this build knows %s", limit, known);
}

/* A level is skipped, and those above it are not, where the machine lacks it: AVX-512 came before AVX-VNNI, and some
 * machines have the one, some the other. */
int fa_kernels_init(fa_kernels *k, const char *limit, fa_error *err) {
    const bool named = limit && *limit;
    size_t last = N_LEVEL - 1;
    if (named) {
        for (last = 0; last < N_LEVEL && strcmp(levels[last].name, limit); last++) {
        }
        if (last == N_LEVEL) return unknown_level(limit, err);
        if (!levels[last].present())
            return fa_fail(err, FFAI_ENOTSUP, "FFAI_CPU=%s: this machine does not have it", limit);
    }
    memset(k, 0, sizeof *k);
    for (size_t i = 0; i <= last; i++) {
        if ((levels[i].by_name && !(named && i == last)) || !levels[i].present()) continue;
        levels[i].init(k);
        k->isa = levels[i].name;
    }
    return 0;
}
