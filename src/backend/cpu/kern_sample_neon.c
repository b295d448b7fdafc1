/* Kernels of samplers for neon. */
#include "backend/cpu/kern_simd_neon.h"
#include "backend/cpu/kern_body_sample.h"

void fa_sample_init_neon(fa_kernels *k) { sample_init(k); }
