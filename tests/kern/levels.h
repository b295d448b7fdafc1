/* The instruction sets that this machine can run, for tests of one kernel group: each level is the C table plus every
 * overlay up to it. */
#ifndef FA_TEST_KERN_LEVELS_H
#define FA_TEST_KERN_LEVELS_H

#include "backend/cpu/kern.h"

static int vec_level(int i, fa_kernels *k) {
    memset(k, 0, sizeof *k);
    fa_kern_vec_init_c(k);
    k->isa = "c";
    if (i == 0) return 1;
#if defined(__x86_64__)
    if (i > 2 || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    fa_kern_vec_init_avx2(k);
    k->isa = "avx2";
    if (i == 1) return 1;
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
        return 0;
    fa_kern_vec_init_avx512(k);
    k->isa = "avx512";
    return 1;
#elif defined(__aarch64__)
    if (i > 1) return 0;
    fa_kern_vec_init_neon(k);
    k->isa = "neon";
    return 1;
#else
    return 0;
#endif
}

#endif
