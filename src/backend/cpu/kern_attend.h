/* What the attention files of one ISA hand to the vector group's init, and the facts they share. Each pair attend /
 * attend_scratch belongs together: an overlay replaces both. */
#ifndef FA_CPU_KERN_ATTEND_H
#define FA_CPU_KERN_ATTEND_H

#include "backend/cpu/kern.h"

enum { FA_PAGE = 64 }; /* tokens per KV page */

void fa_attend_init_c(fa_kernels *k);
void fa_attend_init_avx2(fa_kernels *k);
void fa_attend_init_avx512(fa_kernels *k);
void fa_attend_init_neon(fa_kernels *k);

#endif
