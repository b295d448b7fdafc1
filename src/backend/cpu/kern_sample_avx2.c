/* Kernels of samplers for avx2. */
#include "backend/cpu/kern_simd_avx2.h"
#include "backend/cpu/kern_body_sample.h"

void fa_sample_init_avx2(fa_kernels *k) { sample_init(k); }
