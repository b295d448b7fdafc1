/* skinny.cuh's kernels for formats whose scales stand apart: affine, mxfp4, mxfp8, nvfp4, fp8. */
#include "backend/cuda/skinny.cuh"

static const cu_skinny_fmt fmts[] = {
    SK_FMT("affine4", CU_K_A4, 2, 256, 128, 5),    SK_FMT("affine4 g32", CU_K_A4, 1, 128, 128, 5),
    SK_FMT("affine8", CU_K_A8, 2, 128, 128, 5),    SK_FMT("affine8 g32", CU_K_A8, 1, 128, 128, 5),
    SK_FMT("mxfp4", CU_K_MXFP4, 1, 256, 128, 3),   SK_FMT("fp8", CU_K_F8, 1, 128, 128, 1),
    SK_FMT_FEW("nvfp4", CU_K_NVFP4, 1, 128, 1),    SK_FMT_FEW("affine2", CU_K_A2, 2, 128, 5),
    SK_FMT_FEW("affine2 g32", CU_K_A2, 1, 128, 5), SK_FMT_FEW("affine3", CU_K_A3, 2, 128, 5),
    SK_FMT_FEW("affine3 g32", CU_K_A3, 1, 128, 5), SK_FMT_FEW("affine5", CU_K_A5, 2, 128, 5),
    SK_FMT_FEW("affine5 g32", CU_K_A5, 1, 128, 5), SK_FMT_FEW("affine6", CU_K_A6, 2, 128, 5),
    SK_FMT_FEW("affine6 g32", CU_K_A6, 1, 128, 5),
};

const cu_skinny_fmt *cu_skinny_find_planar(int kind, int units) {
    for (const cu_skinny_fmt &f : fmts)
        if (f.kind == kind && f.units == units) return &f;
    return NULL;
}
