/* Matrix products with NEON and the dot and 2 x 2 products of FEAT_DotProd and FEAT_I8MM. */
#include "backend/cpu/kern_arm_neon.h"
#include "backend/cpu/kern_body_linear.h"

void fa_kern_linear_init_neoni8mm(fa_kernels *k) { linear_init(k); }
