/* Matrix products for neon: nothing beyond the narrower versions yet. */
#include "backend/cpu/kern.h"

void fa_kern_linear_init_neon(fa_kernels *k) { (void)k; }
