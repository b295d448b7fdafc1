/* What the sampler files of one ISA hand to the vector group's init. */
#ifndef FA_CPU_KERN_SAMPLE_H
#define FA_CPU_KERN_SAMPLE_H

#include "backend/cpu/kern.h"

void fa_sample_init_c(fa_kernels *k);
void fa_sample_init_avx2(fa_kernels *k);
void fa_sample_init_avx512(fa_kernels *k);
void fa_sample_init_neon(fa_kernels *k);

#endif
