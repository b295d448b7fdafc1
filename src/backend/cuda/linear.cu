/* Linear records by number of input rows. Few stream the weight (stream*.cu), many go through matrix products
 * (many.cu). In between are the products of skinny.h; formats that have none are streamed several times, CU_FEW rows a
 * time: unpacking one for a matrix product writes and reads two bytes a value, as much as streaming 4-bit codes about
 * eight times. */
#include "backend/cuda/skinny.h"

enum { SOME = 64 /* rows up to which quantized weights are streamed */ };

static bool quantized(const fa_linear *lin) {
    const int fmt = lin->w.fmt;
    return fmt != FA_FMT_F32 && fmt != FA_FMT_F16 && fmt != FA_FMT_BF16;
}

static int linears(const fa_rec *r, const fa_linear *lin[CU_SKINNY_PARTS]) {
    switch (r->op) {
    case FA_OP_NORM_QKV: lin[0] = r->p.qkv.q, lin[1] = r->p.qkv.k, lin[2] = r->p.qkv.v; return r->p.qkv.k ? 3 : 1;
    case FA_OP_NORM_MLP_UP: lin[0] = r->p.mlp_up.gate, lin[1] = r->p.mlp_up.up; return 2;
    case FA_OP_LINEAR_ADD: lin[0] = r->p.linear_add.lin; return 1;
    default: lin[0] = r->p.linear; return 1;
    }
}

/* How many times the weights are streamed; 0: they go through matrix products. */
static int64_t passes(const fa_cuda *cu, const fa_rec *r) {
    const int64_t M = r->in[0].dim[0];
    const fa_linear *lin[CU_SKINNY_PARTS];
    const int n = linears(r, lin);
    if (cu_skinny_fits(cu, lin, n, M)) return 0;
    if (M <= CU_FEW) return 1;
    for (int i = 0; i < n; i++)
        if (M > SOME || !quantized(lin[i])) return 0;
    return (M + CU_FEW - 1) / CU_FEW;
}

bool cu_linear_streams(const fa_cuda *cu, const fa_rec *r) { return passes(cu, r) == 1; }

static void tensor_rows(fa_tensor *t, int64_t row, int64_t n) {
    const int64_t width = fa_tensor_len(*t) / t->dim[0];
    if (t->data) t->data = (uint8_t *)t->data + (size_t)(row * width) * fa_dtype_size((fa_dtype)t->dtype);
    t->dim[0] = n;
}

/* Rows [row, row + n) of a record as a record, and what of the batch goes by rows. */
static fa_rec record_rows(const fa_rec *r, int64_t row, int64_t n) {
    fa_rec part = *r;
    tensor_rows(&part.in[0], row, n);
    tensor_rows(&part.out, row, n);
    if (r->op == FA_OP_NORM_QKV && r->p.qkv.rope_table) part.p.qkv.rope_table += row * 2 * r->p.qkv.n_pair;
    return part;
}
static cu_batch batch_rows(const cu_batch *b, int64_t row, int64_t n) {
    cu_batch part = *b;
    part.n_tok = (int)n;
    part.row_seq += row;
    part.place += row;
    return part;
}

static int64_t work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    const int64_t n = passes(cu, r), M = r->in[0].dim[0];
    if (n == 0) return cu_many_work(cu, r, err);
    if (n == 1) return cu_stream_work(cu, r, err);
    int64_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        const fa_rec part = record_rows(r, M * i / n, M * (i + 1) / n - M * i / n);
        const int64_t bytes = cu_stream_work(cu, &part, err);
        if (bytes < 0) return bytes;
        if (bytes > most) most = bytes;
    }
    return most;
}

static void launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const int64_t n = passes(cu, r), M = r->in[0].dim[0];
    if (n == 0) {
        cu_many_launch(cu, r, b);
    } else if (n == 1) {
        cu_stream_launch(cu, r, b);
    } else {
        for (int64_t i = 0; i < n; i++) {
            const int64_t row = M * i / n, rows = M * (i + 1) / n - row;
            const fa_rec part = record_rows(r, row, rows);
            const cu_batch sub = batch_rows(b, row, rows);
            cu_stream_launch(cu, &part, &sub);
        }
    }
}

extern const cu_op cu_op_linear = {launch, work};
extern const cu_op cu_op_linear_add = {launch, work};
extern const cu_op cu_op_norm_qkv = {launch, work};
extern const cu_op cu_op_norm_mlp_up = {launch, work};
