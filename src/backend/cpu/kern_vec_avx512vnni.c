/* Row operations for avx512vnni. */
#include "backend/cpu/kern_attend.h"

void fa_kern_vec_init_avx512vnni(fa_kernels *k) { (void)k; }
