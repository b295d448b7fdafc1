/* skinny.cuh's kernels for GGUF's blocks. Those with tables of values (IQ, TQ) have none. */
#include "backend/cuda/skinny.cuh"

static const cu_skinny_fmt fmts[] = {
    SK_FMT("q4_0", CU_K_Q4_0, 1, 128, 128, 5), SK_FMT("q8_0", CU_K_Q8_0, 1, 128, 128, 5),
    SK_FMT("q4_k", CU_K_Q4_K, 1, 256, 256, 5), SK_FMT("q6_k", CU_K_Q6_K, 1, 256, 256, 5),
    SK_FMT_FEW("q4_1", CU_K_Q4_1, 1, 128, 5),  SK_FMT_FEW("q5_0", CU_K_Q5_0, 1, 128, 5),
    SK_FMT_FEW("q5_1", CU_K_Q5_1, 1, 128, 5),  SK_FMT_FEW("q5_k", CU_K_Q5_K, 1, 256, 5),
    SK_FMT_FEW("q2_k", CU_K_Q2_K, 1, 256, 5),  SK_FMT_FEW("q3_k", CU_K_Q3_K, 1, 256, 5),
};

const cu_skinny_fmt *cu_skinny_find_gguf(int kind, int units) {
    for (const cu_skinny_fmt &f : fmts)
        if (f.kind == kind && f.units == units) return &f;
    return NULL;
}
