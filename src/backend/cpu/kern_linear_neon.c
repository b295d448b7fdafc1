/* Matrix products with NEON as every armv8-a has it. */
#include "backend/cpu/kern_arm_neon.h"
#include "backend/cpu/kern_body_linear.h"

void fa_kern_linear_init_neon(fa_kernels *k) { linear_init(k); }
