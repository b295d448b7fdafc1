/* Row-wise operations on the GPU: norms, rotation, cache writes, activations, copies. */
#include "backend/cuda/cu.h"

extern const cu_op cu_op_rope_table = {NULL, NULL};
extern const cu_op cu_op_norm = {NULL, NULL};
extern const cu_op cu_op_head_norm = {NULL, NULL};
extern const cu_op cu_op_rope = {NULL, NULL};
extern const cu_op cu_op_append = {NULL, NULL};
extern const cu_op cu_op_glu = {NULL, NULL};
extern const cu_op cu_op_add = {NULL, NULL};
extern const cu_op cu_op_rows = {NULL, NULL};
extern const cu_op cu_op_softcap = {NULL, NULL};
