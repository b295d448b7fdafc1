/* Kernels of recurrent layers for avx2. */
#include "backend/cpu/kern_simd_avx2.h"
#include "backend/cpu/kern_body_scan.h"

void fa_scan_init_avx2(fa_kernels *k) { scan_init(k); }
