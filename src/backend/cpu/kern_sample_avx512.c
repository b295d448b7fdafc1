/* Kernels of samplers for avx512. */
#include "backend/cpu/kern_simd_avx512.h"
#include "backend/cpu/kern_body_sample.h"

void fa_sample_init_avx512(fa_kernels *k) { sample_init(k); }
