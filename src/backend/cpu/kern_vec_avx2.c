/* Row operations for avx2. */
#include "backend/cpu/kern_attend.h"

void fa_kern_vec_init_avx2(fa_kernels *k) { (void)k; }
