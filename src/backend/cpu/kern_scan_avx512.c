/* Kernels of recurrent layers for avx512. */
#include "backend/cpu/kern_simd_avx512.h"
#include "backend/cpu/kern_body_scan.h"

void fa_scan_init_avx512(fa_kernels *k) { scan_init(k); }
