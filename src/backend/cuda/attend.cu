/* Attention over the paged cache on the GPU. */
#include "backend/cuda/cu.h"

extern const cu_op cu_op_attend = {NULL, NULL};
