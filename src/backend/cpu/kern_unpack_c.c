/* Unpack, plain C: the formats' own definitions. */
#include "backend/cpu/kern.h"

void fa_kern_unpack_init_c(fa_kernels *k) {
    for (int f = 0; f < FA_FMT_COUNT; f++) k->unpack[f] = fa_qfmts[f].unpack;
}
