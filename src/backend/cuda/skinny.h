/* Products of a few to 64 input rows with quantized weights (skinny.cu), as many.cu asks for them. */
#ifndef FA_CUDA_SKINNY_H
#define FA_CUDA_SKINNY_H

#include "backend/cuda/cu.h"
#include "backend/cuda/cu_rows.h"

enum { CU_SKINNY_MOST = 64 /* input rows */, CU_SKINNY_PARTS = 3 };

enum {
    CU_SKINNY_STORE, /* out = v, f32 */
    CU_SKINNY_ADD,   /* out += v */
    CU_SKINNY_GLU    /* out = act(v of lin[0]) * v of lin[1], which have one format */
};

typedef struct cu_skinny_product {
    const fa_linear *const *lin; /* columns of out: those of lin[0], of lin[1], ...; of GLU one's */
    int n;
    bool bias; /* biases are added */
    int64_t M, K;
    const void *x; /* [M, K] F32 or BF16 */
    int x_type;
    cu_norm norm; /* of x */
    void *work;   /* cu_skinny_bytes */
    int end, act;
    void *out;
    int out_type; /* F32; of GLU also BF16 */
    int64_t ld;
} cu_skinny_product;

/* Are there kernels for all of lin[0..n), with this many rows? */
bool cu_skinny_fits(const fa_cuda *cu, const fa_linear *const *lin, int n, int64_t M);
/* Have they one format, so that GLU is possible? */
bool cu_skinny_same(const fa_linear *a, const fa_linear *b);
size_t cu_skinny_bytes(const fa_cuda *cu, const fa_linear *const *lin, int n, int64_t M, int64_t K);
/* linear.cu: is r streamed (stream.cu), all rows at once? */
bool cu_linear_streams(const fa_cuda *cu, const fa_rec *r);
void cu_skinny_run(fa_cuda *cu, const cu_skinny_product *p);

#endif
