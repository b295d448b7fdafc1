/* Kernels of recurrent layers for neon. */
#include "backend/cpu/kern_simd_neon.h"
#include "backend/cpu/kern_body_scan.h"

void fa_scan_init_neon(fa_kernels *k) { scan_init(k); }
