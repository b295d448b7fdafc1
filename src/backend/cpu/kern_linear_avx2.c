/* Matrix products for avx2: nothing beyond the narrower versions yet. */
#include "backend/cpu/kern.h"

void fa_kern_linear_init_avx2(fa_kernels *k) { (void)k; }
