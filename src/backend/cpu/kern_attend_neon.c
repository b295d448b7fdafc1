/* Attention for neon. */
#include "backend/cpu/kern_simd_neon.h"
#include "backend/cpu/kern_body_attend.h"

void fa_attend_init_neon(fa_kernels *k) { attend_init(k); }
