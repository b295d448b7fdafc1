/* Matrix products for avx512: nothing beyond the narrower versions yet. */
#include "backend/cpu/kern.h"

void fa_kern_linear_init_avx512(fa_kernels *k) { (void)k; }
