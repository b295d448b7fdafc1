/* Linear records with few input rows: the float formats of stream.cuh's kernel, and the host side of all formats: which
 * kernel, how many blocks, what lies where in shared memory. */
#include "backend/cuda/moe_few.cuh"
#include "backend/cuda/skinny.h"

#include <limits.h>

/* ---- float formats ---- */

/* A step is 256 bytes of each row, four times 16 bytes a lane; slot: [4][lane] 16 bytes, so that a lane finds its own
 * loads again and no two meet in a bank. A warp's four loads take whole lines of 8 rows. */
enum { STEP_BYTES = 256, PIECES = 4, FLOAT_RING = 4 };

struct row_cursor {
    const uint8_t *p; /* the lane's first 16 bytes in the row */
    int n;            /* bytes from p to the end of the row, rounded up to 16; <= 0: nothing */
};

/* lane_bytes: from one lane of a row to the next. */
CU_DEV row_cursor row_at(const cu_mat &w, cu_tile tile, int lane, int lane_bytes, int elem) {
    const int row = cu_tile_row(tile, lane / 4), at = lane % 4 * lane_bytes;
    row_cursor c;
    c.p = w.codes + (int64_t)min(row, w.rows - 1) * w.row_bytes + at;
    c.n = row < w.rows ? (w.cols * elem + 15) / 16 * 16 - at : 0;
    return c;
}
CU_DEV void row_piece(uint8_t *slot, const row_cursor &c, int i, int at, int lane) {
    cu_cp_async(slot + i * 512 + lane * 16, c.n > at ? c.p + at : c.p, c.n > at ? 16 : 0);
}

/* Piece i of lane t of a row is columns 32 i + 8 t .. + 7, 16 bits each. */
CU_DEV void half_fetch(uint8_t *slot, const row_cursor &c, int step, int lane) {
#pragma unroll
    for (int i = 0; i < PIECES; i++) row_piece(slot, c, i, step * STEP_BYTES + i * 64, lane);
}

struct fmt_bf16 {
    enum { COLS = 128, SLOT = 2048, WARPS = 8, RING = FLOAT_RING, CODES = 0 };
    typedef row_cursor cursor;
    CU_FMT cursor at(const cu_mat &w, cu_tile tile, int lane) { return row_at(w, tile, lane, 16, 2); }
    CU_FMT void fetch(uint8_t *slot, const cu_mat &, const cursor &c, int step, int lane) {
        half_fetch(slot, c, step, lane);
    }
    template <bool HI>
    CU_FMT void fast(const uint8_t *slot, const cu_mat &, int, int lane, const uint16_t *x, const uint16_t *xh,
                     float acc[2][4]) {
        const int k = lane % 4 * 8;
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            cu_mma8<HI>(((const uint4 *)slot)[32 * i + lane], x + 32 * i + k, xh + 32 * i + k, acc[i & 1]);
    }
    template <int R>
    CU_FMT void exact(const uint8_t *slot, const cu_mat &, int, int lane, const float *x, int ldx, int M, float *acc) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const uint4 b = ((const uint4 *)slot)[32 * i + lane];
            const float v[8] = {cu_bf16_lo(b.x), cu_bf16_hi(b.x), cu_bf16_lo(b.y), cu_bf16_hi(b.y),
                                cu_bf16_lo(b.z), cu_bf16_hi(b.z), cu_bf16_lo(b.w), cu_bf16_hi(b.w)};
            cu_dot8<R>(v, x + 32 * i + lane % 4 * 8, ldx, M, acc);
        }
    }
};

struct fmt_f16 {
    enum { COLS = 128, SLOT = 2048, WARPS = 8, RING = FLOAT_RING, CODES = 0 };
    typedef row_cursor cursor;
    CU_FMT cursor at(const cu_mat &w, cu_tile tile, int lane) { return row_at(w, tile, lane, 16, 2); }
    CU_FMT void fetch(uint8_t *slot, const cu_mat &, const cursor &c, int step, int lane) {
        half_fetch(slot, c, step, lane);
    }
    CU_FMT void values(const uint8_t *slot, int i, int lane, float v[8]) {
        const uint4 b = ((const uint4 *)slot)[32 * i + lane];
        v[0] = cu_f16_lo(b.x), v[1] = cu_f16_hi(b.x), v[2] = cu_f16_lo(b.y), v[3] = cu_f16_hi(b.y);
        v[4] = cu_f16_lo(b.z), v[5] = cu_f16_hi(b.z), v[6] = cu_f16_lo(b.w), v[7] = cu_f16_hi(b.w);
    }
    template <bool HI>
    CU_FMT void fast(const uint8_t *slot, const cu_mat &, int, int lane, const uint16_t *x, const uint16_t *xh,
                     float acc[2][4]) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            float v[8];
            values(slot, i, lane, v);
            cu_mma_split<HI>(v, x + 32 * i + lane % 4 * 8, xh + 32 * i + lane % 4 * 8, acc);
        }
    }
    template <int R>
    CU_FMT void exact(const uint8_t *slot, const cu_mat &, int, int lane, const float *x, int ldx, int M, float *acc) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            float v[8];
            values(slot, i, lane, v);
            cu_dot8<R>(v, x + 32 * i + lane % 4 * 8, ldx, M, acc);
        }
    }
};

/* Pieces 2 i and 2 i + 1 of lane t of a row are columns 32 i + 8 t .. + 7. */
struct fmt_f32 {
    enum { COLS = 64, SLOT = 2048, WARPS = 8, RING = FLOAT_RING, CODES = 0 };
    typedef row_cursor cursor;
    CU_FMT cursor at(const cu_mat &w, cu_tile tile, int lane) { return row_at(w, tile, lane, 32, 4); }
    CU_FMT void fetch(uint8_t *slot, const cu_mat &, const cursor &c, int step, int lane) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) row_piece(slot, c, i, step * STEP_BYTES + i / 2 * 128 + i % 2 * 16, lane);
    }
    CU_FMT void values(const uint8_t *slot, int i, int lane, float v[8]) {
        const float4 p = ((const float4 *)slot)[64 * i + lane], q = ((const float4 *)slot)[64 * i + 32 + lane];
        v[0] = p.x, v[1] = p.y, v[2] = p.z, v[3] = p.w, v[4] = q.x, v[5] = q.y, v[6] = q.z, v[7] = q.w;
    }
    template <bool HI>
    CU_FMT void fast(const uint8_t *slot, const cu_mat &, int, int lane, const uint16_t *x, const uint16_t *xh,
                     float acc[2][4]) {
#pragma unroll
        for (int i = 0; i < PIECES / 2; i++) {
            float v[8];
            values(slot, i, lane, v);
            cu_mma_split<HI>(v, x + 32 * i + lane % 4 * 8, xh + 32 * i + lane % 4 * 8, acc);
        }
    }
    template <int R>
    CU_FMT void exact(const uint8_t *slot, const cu_mat &, int, int lane, const float *x, int ldx, int M, float *acc) {
#pragma unroll
        for (int i = 0; i < PIECES / 2; i++) {
            float v[8];
            values(slot, i, lane, v);
            cu_dot8<R>(v, x + 32 * i + lane % 4 * 8, ldx, M, acc);
        }
    }
};

static const cu_stream_fmt float_fmts[] = {CU_STREAM_FMT("stream f32", fmt_f32), CU_STREAM_FMT("stream f16", fmt_f16),
                                           CU_STREAM_FMT("stream bf16", fmt_bf16)};

static const cu_stream_fmt *find(const fa_weight *w) {
    switch (w->fmt) {
    case FA_FMT_F32: return &float_fmts[0];
    case FA_FMT_F16: return &float_fmts[1];
    case FA_FMT_BF16: return &float_fmts[2];
    default: return cu_stream_find_quant(w);
    }
}

const cu_stream_fmt *cu_stream_find_moe(const fa_weight *w) {
    const cu_stream_fmt *f = find(w);
    return f && !f->moe[0] ? cu_stream_find_codes(w) : f;
}

/* ---- a record as launches ---- */

enum {
    MAX_LAUNCH = 3,
    SMEM_WANT = 112 * 1024, /* half a multiprocessor's: two blocks hide each other's ends of tiles */
    KEEP_JOBS = 24          /* tiles of a block whose sums are kept from chunk to chunk */
};

/* The launches that a record needs: one, or one for each format among its weights. */
typedef struct plan {
    int n;
    int64_t work; /* bytes */
    struct {
        const cu_stream_fmt *fmt;
        cu_stream_args a;
        int warps, kind;
        unsigned grid;
        size_t smem;
    } run[MAX_LAUNCH];
} plan;

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

static int rec_linears(const fa_rec *r, const fa_linear *lin[CU_PARTS]) {
    switch (r->op) {
    case FA_OP_LINEAR: lin[0] = r->p.linear; return 1;
    case FA_OP_LINEAR_ADD: lin[0] = r->p.linear_add.lin; return 1;
    case FA_OP_NORM_MLP_UP: lin[0] = r->p.mlp_up.gate, lin[1] = r->p.mlp_up.up; return 2;
    default: lin[0] = r->p.qkv.q, lin[1] = r->p.qkv.k, lin[2] = r->p.qkv.v; return r->p.qkv.k ? 3 : 1;
    }
}

cu_mat cu_mat_of(const fa_weight *w) {
    cu_mat m;
    m.codes = w->codes, m.scales = w->scales, m.biases = w->biases;
    m.row_bytes = (int64_t)w->row_bytes, m.scale_row_bytes = (int64_t)w->scale_row_bytes;
    m.rows = (int)w->rows, m.cols = (int)w->cols;
    m.bits = w->bits, m.group = w->group, m.scale_dtype = w->scale_dtype, m.fmt = w->fmt;
    return m;
}

static cu_part part_of(const fa_linear *lin, int tile, int col) {
    cu_part p;
    p.w = cu_mat_of(&lin->w);
    p.bias = lin->bias;
    p.tile = tile;
    p.col = col;
    p.pairs = 0;
    return p;
}

/* The arguments that all launches of a record have in common. */
static cu_stream_args common(const fa_cuda *cu, const fa_rec *r) {
    cu_stream_args a;
    memset(&a, 0, sizeof a);
    a.M = (int)r->in[0].dim[0];
    a.K = (int)r->in[0].dim[1];
    a.x = r->in[0].data;
    a.x_type = r->in[0].dtype;
    a.out = r->out.data;
    a.out_type = r->out.dtype;
    a.ld = (int)r->out.dim[1];
    a.work = (float *)r->work;
    a.counter = cu->counter;
    if (cu->gated == r) { /* scan_step.cu has left the norm of the input to this record */
        a.normed = (float *)r->in[0].data;
        a.x = r->work;
        a.norm.w = cu->gate->w, a.norm.eps = cu->gate->eps, a.norm.on = 1;
    }
    if (r->op == FA_OP_NORM_QKV) a.norm = cu_norm_of(r->p.qkv.norm);
    if (r->op == FA_OP_NORM_MLP_UP) a.norm = cu_norm_of(r->p.mlp_up.norm), a.act = r->p.mlp_up.act;
    if (r->op == FA_OP_LINEAR_ADD) a.post = cu_norm_of(r->p.linear_add.post);
    a.vec = a.K % 8 == 0 && (uintptr_t)a.x % 16 == 0 && (uintptr_t)a.norm.w % 16 == 0;
    return a;
}

/* Adds a launch for parts list[0..n) of the record's linear layers. */
static void add_launch(plan *p, const cu_stream_fmt *fmt, const cu_stream_args *base, const fa_linear *const *lin,
                       const int *col, int n, bool paired, int end) {
    cu_stream_args *a = &p->run[p->n].a;
    int64_t tile = 0;
    *a = *base;
    for (int i = 0; i < CU_PARTS; i++) {
        if (i < n)
            a->part[i] = part_of(lin[i], (int)tile, col[i]);
        else
            a->part[i].tile = INT_MAX;
        if (i < n && !(paired && i)) tile += (lin[i]->w.rows + CU_TILE - 1) / CU_TILE;
    }
    a->paired = paired;
    a->n_tile = (int)tile;
    a->end = end;
    p->run[p->n++].fmt = fmt;
}

/* Elements from one input row to the next: a row of n steps, and so much more that neighbouring rows lie half of the
 * banks apart. */
static size_t line_of(int n, int step, int elem) {
    return (((size_t)n * (size_t)step * (size_t)elem + 127) / 128 * 128 + 64) / (size_t)elem;
}

/* Lays out launch i with this many warps in `have` bytes of shared memory: all of the input, or chunks of `least` steps
 * or more. false: it does not fit. */
static bool lay_out(const fa_cuda *cu, plan *p, int i, int warps, size_t have, int least) {
    const cu_stream_fmt *f = p->run[i].fmt;
    cu_stream_args *a = &p->run[i].a;
    const bool exact = cu->be.exact;
    const int elem = exact ? 4 : 2, step = exact ? f->cols : f->line; /* elements of a step in an input row */
    const int kind = exact ? (a->M == 1 ? CU_EXACT1 : CU_EXACT16)
                           : (a->M == 1   ? CU_FAST1
                              : a->M <= 8 ? CU_FAST8
                                          : CU_FAST16);
    const bool one = kind == CU_EXACT1 || (a->wide && kind == CU_FAST1);
    const int rows = one ? 1 : kind == CU_FAST1 || kind == CU_FAST8 ? 8 : 16;
    const int jobs = a->paired && !a->wide ? 2 : 1, n_out = rows * CU_TILE * (a->wide ? 2 : 1) * 4;
    const int n_tile = a->wide && !a->paired ? (a->n_tile + 1) / 2 : a->n_tile; /* that are worked on at a time */
    const size_t ring = (size_t)warps * f->ring * f->slot, red = (size_t)2 * warps * n_out, sum = CU_STREAM_SUMS * 4;
    const size_t fixed = ring + red + sum;
    size_t line = line_of(a->n_step, step, elem), keep = n_out;
    const int64_t most_blocks = have <= (size_t)SMEM_WANT ? 2 * cu->n_sm : cu->n_sm;
    int64_t grid = n_tile < most_blocks ? n_tile : most_blocks;
    a->n_chunk = 1;
    a->chunk = a->n_step;
    if (fixed + keep + a->M * line * elem > have) {
        if (grid * KEEP_JOBS < (int64_t)n_tile * jobs)
            grid = ((int64_t)n_tile + KEEP_JOBS / jobs - 1) / (KEEP_JOBS / jobs);
        keep = (size_t)((n_tile + grid - 1) / grid) * jobs * n_out;
        const int64_t room = (int64_t)have - (int64_t)(fixed + keep), cols = (room - 192 * a->M) / elem / a->M;
        const int most = (int)(cols < 0 ? 0 : cols / step);
        if (most < least) return false;
        a->n_chunk = (a->n_step + most - 1) / most;
        a->chunk = (a->n_step + a->n_chunk - 1) / a->n_chunk;
        a->n_chunk = (a->n_step + a->chunk - 1) / a->chunk;
        line = line_of(a->chunk, step, elem);
    }
    a->ldx = (int)line;
    a->n_seg = warps / a->M ? warps / a->M : 1;
    a->seg = (a->chunk * f->cols / 8 + a->n_seg - 1) / a->n_seg * 8;
    const int size = a->x_type == FA_F32 ? 4 : 2;
    a->bulk = cu->arch >= 90 && !exact && a->vec &&
              (size == 2 ||
               (a->M == 1 && a->n_chunk == 1 && a->seg <= CU_BULK_TURN * 4 * CU_WARP && a->seg * size <= f->slot));
    a->at_x = (int)ring;
    a->at_red = (int)(ring + up16((size_t)a->M * line * elem));
    a->at_sum = a->at_red + (int)red;
    a->at_keep = a->at_sum + (int)sum;
    p->run[i].kind = kind;
    p->run[i].warps = warps;
    p->run[i].grid = (unsigned)grid;
    p->run[i].smem = (size_t)a->at_keep + keep;
    return true;
}

/* Warps, blocks and shared memory of launch i. Half a multiprocessor if each warp gets two steps of a chunk there, else
 * all of it, else fewer warps, whose rings are smaller. */
static int geometry(const fa_cuda *cu, plan *p, int i, const char *name, fa_error *err) {
    const cu_stream_fmt *f = p->run[i].fmt;
    cu_stream_args *a = &p->run[i].a;
    a->n_step = (int)((a->K + (int64_t)f->cols - 1) / f->cols);
    a->wide = f->wide && !cu->be.exact;
    const int tile = a->wide ? 2 * CU_TILE : CU_TILE;
    const int few = (a->M * tile + CU_WARP - 1) / CU_WARP; /* a thread for every result of a tile */
    int warps = a->n_step < f->warps ? a->n_step : f->warps;
    if (warps < few) warps = few;
    if (cu->smem_max > (size_t)SMEM_WANT && lay_out(cu, p, i, warps, SMEM_WANT, 2 * warps)) return 0;
    for (;; warps = warps / 2 < few ? few : warps / 2) {
        if (lay_out(cu, p, i, warps, cu->smem_max, warps == few ? 1 : warps)) return 0;
        if (warps == few) break;
    }
    return fa_fail(err, FFAI_ENOTSUP, "%s: %d rows of %d columns do not fit the %zu bytes of shared memory", name, a->M,
                   a->K, cu->smem_max);
}

static const char *fmt_name(int fmt) {
    static const char *const names[] = {
#define FA_X(id, name) name,
        FA_FMTS(FA_X)
#undef FA_X
    };
    return fmt < FA_FMT_COUNT ? names[fmt] : "?";
}

static int check(const fa_rec *r, const fa_linear *const *lin, int n, const cu_stream_fmt **fmt, fa_error *err) {
    for (int i = 0; i < n; i++) {
        const fa_weight *w = &lin[i]->w;
        const char *name = w->name ? w->name : "weight";
        if (w->cols != r->in[0].dim[1])
            return fa_fail(err, FFAI_EINVAL, "%s has %lld columns, the input %lld", name, (long long)w->cols,
                           (long long)r->in[0].dim[1]);
        if (w->rows > INT_MAX / 8 || w->cols > INT_MAX / 8)
            return fa_fail(err, FFAI_ELIMIT, "%s: [%lld, %lld] is too large for a kernel", name, (long long)w->rows,
                           (long long)w->cols);
        if (!(fmt[i] = find(w)))
            return fa_fail(err, FFAI_ENOTSUP, "%s: no kernel streams %s (bits %d, groups of %d)", name,
                           fmt_name(w->fmt), w->bits, w->group);
    }
    return 0;
}

/* Heads need no second look when nothing normalises them and rotation's pairs fit into tiles. */
static bool rotates_at_once(const fa_qkv_param *q) {
    if (q->q_norm || q->k_norm || q->v_norm || q->kv->head_dim % CU_TILE || q->kv->dtype == FA_I8) return false;
    return !q->rope_table || q->interleaved || q->n_pair % 4 == 0;
}

static void plan_qkv(plan *p, const cu_stream_args *base, const fa_rec *r, const fa_linear *const *lin, int n_lin,
                     const cu_stream_fmt *const *fmt, const cu_batch *b) {
    int at[4] = {0, 0, 0, 0};
    for (int i = 0; i < 3; i++) at[i + 1] = at[i] + (i < n_lin ? (int)lin[i]->w.rows : 0);
    cu_stream_args a = *base;
    a.ld = at[3];
    const int end = rotates_at_once(&r->p.qkv) ? CU_END_ROTATE : CU_END_HEADS;
    if (b) a.heads = cu_qkv_finish_of(r, b);
    for (int i = 0; i < n_lin; i++) {
        const fa_linear *same[CU_PARTS];
        int col[CU_PARTS], n = 0;
        bool done = false;
        for (int j = 0; j < i; j++) done |= fmt[j] == fmt[i];
        for (int j = i; j < n_lin && !done; j++)
            if (fmt[j] == fmt[i]) same[n] = lin[j], col[n++] = at[j];
        if (!n) continue;
        add_launch(p, fmt[i], &a, same, col, n, false, end);
        for (int j = 0; j < n; j++) /* q and k, where pairs lie apart */
            if (end == CU_END_ROTATE && r->p.qkv.rope_table && !r->p.qkv.interleaved && col[j] != at[2])
                p->run[p->n - 1].a.part[j].pairs = (int)r->p.qkv.n_pair;
    }
    if (end == CU_END_HEADS) p->work = (int64_t)a.M * a.ld * 4;
}

/* b NULL: only for the sizes. */
static int make_plan(const fa_cuda *cu, const fa_rec *r, const cu_batch *b, plan *p, fa_error *err) {
    const fa_linear *lin[CU_PARTS] = {NULL, NULL, NULL};
    const cu_stream_fmt *fmt[CU_PARTS];
    const int n = rec_linears(r, lin), zero[CU_PARTS] = {0, 0, 0};
    p->n = 0;
    p->work = 0;
    int rc = check(r, lin, n, fmt, err);
    if (rc) return rc;
    const cu_stream_args a = common(cu, r);
    if (a.M == 0) return 0;
    if (r->op == FA_OP_LINEAR) {
        add_launch(p, fmt[0], &a, lin, zero, 1, false, CU_END_STORE);
    } else if (r->op == FA_OP_LINEAR_ADD) {
        add_launch(p, fmt[0], &a, lin, zero, 1, false, a.post.on ? CU_END_POST : CU_END_ADD);
        p->work = a.post.on ? (int64_t)a.M * a.ld * 4 : (int64_t)a.M * a.K * 4; /* or rows of fa_cuda.gated */
    } else if (r->op == FA_OP_NORM_QKV) {
        plan_qkv(p, &a, r, lin, n, fmt, b);
    } else if (fmt[0] == fmt[1]) {
        add_launch(p, fmt[0], &a, lin, zero, 2, true, CU_END_GLU);
    } else { /* two formats: the gates wait in memory */
        add_launch(p, fmt[0], &a, lin, zero, 1, false, CU_END_WORK);
        add_launch(p, fmt[1], &a, lin + 1, zero, 1, false, CU_END_GATE);
        p->work = (int64_t)a.M * a.ld * 4;
    }
    for (int i = 0; i < p->n; i++)
        if ((rc = geometry(cu, p, i, lin[0]->w.name ? lin[0]->w.name : "weight", err))) return rc;
    return 0;
}

int64_t cu_stream_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    plan p;
    const int rc = make_plan(cu, r, NULL, &p, err);
    if (rc) return rc;
    if (r->op != FA_OP_NORM_QKV || !p.n) return p.work;
    const int64_t heads = (r->p.qkv.q->w.rows + (r->p.qkv.k ? 2 * r->p.qkv.k->w.rows : 0)) / r->p.qkv.kv->head_dim;
    if (heads > CU_COUNTERS || (size_t)(heads + 1) * 4 > (size_t)p.run[0].fmt->slot * p.run[0].fmt->ring)
        return fa_fail(err, FFAI_ENOTSUP, "%lld heads in one layer", (long long)heads);
    return p.work;
}

void cu_stream_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    plan p;
    fa_error err = {};
    if (make_plan(cu, r, b, &p, &err)) {
        cu_fail(cu, err.code, "%s", err.msg);
        return;
    }
    for (int i = 0; i < p.n; i++)
        cu_launch_as(cu, p.run[i].fmt->name, p.run[i].fmt->kernel[p.run[i].kind], dim3(p.run[i].grid),
                     p.run[i].warps * CU_WARP, p.run[i].smem, p.run[i].a);
    if (cu->gated == r) cu->gated = NULL;
}

/* ---- a norm and what stands behind it in one launch ---- */

/* r: NORM and LINEAR of few rows in fast mode, the one of what the other makes? */
static bool is_normed_linear(const fa_cuda *cu, const fa_rec *r) {
    const fa_rec *norm = &r[0], *lin = &r[1];
    if (cu->be.exact || norm->op != FA_OP_NORM || lin->op != FA_OP_LINEAR || norm->p.norm->center) return false;
    return lin->in[0].dim[0] > 0 && lin->in[0].dim[0] <= CU_FEW && norm->in[0].dtype == FA_F32 &&
           norm->out.dtype == FA_F32 && norm->out.data != norm->in[0].data && norm->out.data == lin->in[0].data &&
           norm->in[0].dim[1] == lin->in[0].dim[1];
}

int cu_stream_normed(fa_cuda *cu, const fa_rec *r, int n) {
    const cu_stream_fmt *fmt;
    const fa_linear *lin = r[1].p.linear;
    const int zero = 0;
    plan p;
    p.n = 0;
    if (n < 2 || !is_normed_linear(cu, r) || check(&r[1], &lin, 1, &fmt, NULL)) return 0;
    const bool route = n > 2 && r[2].op == FA_OP_ROUTE && r[2].in[0].data == r[1].out.data;
    if (!route && !cu_linear_streams(cu, &r[1])) return 0;
    cu_stream_args a = common(cu, &r[1]);
    a.x = r[0].in[0].data;
    a.norm = cu_norm_of(r[0].p.norm);
    a.vec = a.K % 8 == 0 && (uintptr_t)a.x % 16 == 0 && (uintptr_t)a.norm.w % 16 == 0;
    a.normed = fa_f32(r[0].out);
    size_t need = 0; /* shared memory of the choice */
    add_launch(&p, fmt, &a, &lin, &zero, 1, false, route ? CU_END_ROUTE : CU_END_STORE);
    if (geometry(cu, &p, 0, "a layer behind a norm", NULL)) return 0;
    if (route) {
        cu_route *o = &p.run[0].a.route;
        *o = cu_route_of(&r[2]);
        need = (size_t)p.run[0].warps * (size_t)cu_route_floats(o->n_expert, o->n_used, o->n_group) * sizeof(float);
        need += CU_ROUTE_AT;
        if (n > 3 && r[3].op == FA_OP_MOE && r[3].in[0].data == r[0].out.data && a.vec && a.K % CU_INT_GROUP == 0)
            p.run[0].a.digits = cu_moe_digits(cu, &r[3]);
    }
    if (need > (size_t)p.run[0].a.at_sum) return 0; /* it takes the place of what is spent by then, not of 1 / rms */
    cu_launch_as(cu, route ? "norm router route" : fmt->name, fmt->kernel[p.run[0].kind], dim3(p.run[0].grid),
                 p.run[0].warps * CU_WARP, p.run[0].smem, p.run[0].a);
    if (p.run[0].a.digits.to) cu->digits = &r[3];
    return route ? 3 : 2;
}
