/* Nothing: the integer dot products of this level do not help float rows. */
#include "backend/cpu/kern.h"

void fa_kern_vec_init_avx512vnni(fa_kernels *k) { (void)k; }
