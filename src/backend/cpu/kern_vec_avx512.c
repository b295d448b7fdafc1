/* Row operations for avx512. */
#include "backend/cpu/kern_attend.h"

void fa_kern_vec_init_avx512(fa_kernels *k) { (void)k; }
