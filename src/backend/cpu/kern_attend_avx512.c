/* Attention for avx512. */
#include "backend/cpu/kern_simd_avx512.h"
#include "backend/cpu/kern_body_attend.h"

void fa_attend_init_avx512(fa_kernels *k) { attend_init(k); }
