/* Row operations for neon. */
#include "backend/cpu/kern_attend.h"

void fa_kern_vec_init_neon(fa_kernels *k) { (void)k; }
