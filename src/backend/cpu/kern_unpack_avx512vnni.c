/* Unpack for avx512vnni: nothing beyond the narrower versions yet. */
#include "backend/cpu/kern.h"

void fa_kern_unpack_init_avx512vnni(fa_kernels *k) { (void)k; }
