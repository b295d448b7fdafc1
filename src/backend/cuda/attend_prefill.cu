#include "backend/cuda/attend.h"
bool cu_att_prefill(fa_cuda *cu, const cu_att *a, fa_dtype kv) { return false; }
