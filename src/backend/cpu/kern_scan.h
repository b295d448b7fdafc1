/* What the files of recurrent layers of one ISA hand to the vector group's init. */
#ifndef FA_CPU_KERN_SCAN_H
#define FA_CPU_KERN_SCAN_H

#include "backend/cpu/kern.h"

void fa_scan_init_c(fa_kernels *k);
void fa_scan_init_avx2(fa_kernels *k);
void fa_scan_init_avx512(fa_kernels *k);
void fa_scan_init_neon(fa_kernels *k);

#endif
