/* Matrix products with NEON and the dot products of FEAT_DotProd. */
#include "backend/cpu/kern_arm_neon.h"
#include "backend/cpu/kern_body_linear.h"

void fa_kern_linear_init_neondot(fa_kernels *k) { linear_init(k); }
