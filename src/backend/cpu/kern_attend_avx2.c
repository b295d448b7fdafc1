/* Attention for avx2. */
#include "backend/cpu/kern_simd_avx2.h"
#include "backend/cpu/kern_body_attend.h"

void fa_attend_init_avx2(fa_kernels *k) { attend_init(k); }
