/* The instruction sets that this machine can run, for tests of one kernel group. */
#ifndef FA_TEST_KERN_LEVELS_H
#define FA_TEST_KERN_LEVELS_H

#include "backend/cpu/kern.h"

#include <stddef.h>
#include <string.h>

/* Table i of those whose bytes [from, to) differ from the one before: plain C is table 0. 0: there is none. */
static inline int level_of_part(int i, size_t from, size_t to, fa_kernels *k) {
    fa_kernels last;
    for (size_t l = 0, n = 0; fa_kernels_level(l); l++) {
        if (fa_kernels_init(k, fa_kernels_level(l), NULL)) continue;
        if (n && !memcmp((const char *)&last + from, (const char *)k + from, to - from)) continue;
        if (n++ == (size_t)i) return 1;
        last = *k;
    }
    return 0;
}

/* The slots after the linear ones */
static inline int vec_level(int i, fa_kernels *k) {
    return level_of_part(i, offsetof(fa_kernels, rms_norm), sizeof *k, k);
}

static inline int unpack_level(int i, fa_kernels *k) {
    return level_of_part(i, offsetof(fa_kernels, unpack), offsetof(fa_kernels, quant_act), k);
}

#endif
