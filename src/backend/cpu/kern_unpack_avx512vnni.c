/* Unpack gains nothing from the dot product instructions: the avx512 versions stay. */
#include "backend/cpu/kern.h"

void fa_kern_unpack_init_avx512vnni(fa_kernels *k) { (void)k; }
