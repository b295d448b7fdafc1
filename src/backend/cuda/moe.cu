/* MOE: the experts of a layer. Few rows go through moe_few.cuh's kernels or moe_int.cu's, more through moe_many.cu. The
 * definition is src/backend/cpu/ops_moe.c. */
#include "backend/cuda/moe.h"
#include "backend/cuda/moe_few.cuh"

#include <string.h>

enum { FEW = 16 /* rows up to which every choice reads its expert for itself */ };

/* ---- stacks ---- */

/* Bytes from one expert to the next in the codes (and scales) plane; false: the distances differ. */
static bool distances(const fa_experts *e, int64_t *codes, int64_t *scales) {
    const fa_weight *w = e->w;
    *codes = e->n > 1 ? w[1].codes - w[0].codes : 0;
    *scales = e->n > 1 && w[0].scales ? w[1].scales - w[0].scales : 0;
    for (int64_t i = 1; i < e->n; i++) {
        const fa_weight *a = &w[i - 1], *b = &w[i];
        if (b->codes - a->codes != *codes || a->fmt != b->fmt || a->bits != b->bits || a->group != b->group ||
            a->scale_dtype != b->scale_dtype || a->row_bytes != b->row_bytes || a->rows != b->rows ||
            a->cols != b->cols)
            return false;
        if (a->scales && (b->scales - a->scales != *scales || a->scale_row_bytes != b->scale_row_bytes)) return false;
        if (a->biases && b->biases - a->biases != *scales) return false;
    }
    return true;
}

static int check_stack(const fa_experts *e, const char *what, fa_error *err) {
    int64_t codes, scales;
    if (!e->n) return 0;
    if (cu_weight_ok(&e->w[0], err)) return -1;
    if (distances(e, &codes, &scales) && codes % 16 == 0 && scales % 16 == 0) return 0;
    return fa_fail(err, FFAI_ENOTSUP, "%s: the %lld experts (%s) do not lie at equal distances in one format",
                   e->w[0].name ? e->w[0].name : "experts", (long long)e->n, what);
}

cu_moe_stack cu_moe_stack_of(const fa_experts *e) {
    cu_moe_stack s = {};
    s.w = &e->w[0];
    s.bias = e->bias;
    distances(e, &s.stride, &s.scale_stride);
    return s;
}

/* ---- few rows ---- */

static cu_moe_mat mat_of(const fa_experts *e) {
    const cu_moe_stack s = cu_moe_stack_of(e);
    cu_moe_mat m;
    m.w = cu_mat_of(s.w);
    m.stride = s.stride, m.scale_stride = s.scale_stride, m.bias = s.bias;
    return m;
}

static size_t up_to(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* A launch of moe_few.cuh: shared memory and how columns are cut. */
typedef struct few {
    const cu_stream_fmt *fmt;
    cu_moe_few_args a;
    size_t smem;
    unsigned grid, warps; /* blocks of a row, or of a choice */
    bool as_int;          /* moe_int.cu */
} few;

/* parts: of the columns; copies: staged rows or parts of them, a warp's or the block's. */
static void lay_out(few *f, bool exact, int warps, int parts, int copies, int n_red) {
    cu_moe_few_args *a = &f->a;
    const int ring = f->fmt->ring < CU_MOE_RING ? f->fmt->ring : CU_MOE_RING;
    a->n_step = (a->m[0].w.cols + f->fmt->cols - 1) / f->fmt->cols;
    a->parts = parts < a->n_step ? parts : a->n_step;
    if (copies == 1) a->parts = parts; /* warps are counted on */
    const int steps = copies == 1 ? a->n_step : (a->n_step + a->parts - 1) / a->parts;
    const size_t cols = (size_t)steps * (size_t)f->fmt->cols;
    /* a sum for each 16 columns at most */
    a->line = (int)up_to(exact ? cols * 4 : cols * 2 + cols / 4, 16);
    a->at_x = warps * ring * f->fmt->slot;
    a->at_red = a->at_x + copies * a->line;
    f->smem = (size_t)a->at_red + (size_t)n_red * CU_TILE * sizeof(float);
    f->grid = cu_blocks(a->ld, CU_TILE), f->warps = (unsigned)warps;
}

/* Warps that share n steps: as many turns as with 8, and as few idle ones in the last. */
static int warps_for(int n) {
    const int turns = (n + 7) / 8;
    return (n + turns - 1) / turns;
}

/* Do gate and up (or the only matrix) lie alike, in whole units and within reach of 32 bits? */
static bool alike(const cu_moe_few_args *a, int per) {
    const cu_moe_mat *x = &a->m[0], *y = &a->m[1];
    return x->stride == y->stride && x->scale_stride == y->scale_stride && x->w.row_bytes == y->w.row_bytes &&
           x->w.scale_row_bytes == y->w.scale_row_bytes && x->w.rows % per == 0 && x->stride < INT32_MAX &&
           x->w.row_bytes * x->w.rows < INT32_MAX;
}

/* A launch of moe_int.cu for `rows` input rows; false: it is not for these, or does not fit. */
static bool lay_out_int(const fa_cuda *cu, few *f, bool down, int64_t rows) {
    cu_moe_few_args *a = &f->a;
    const int per = a->n_mat == 2 ? CU_TILE : 2 * CU_TILE, rows_in = down ? a->n_used : 1;
    if (!a->vec || !alike(a, per)) return false;
    a->n_step = (a->m[0].w.cols + f->fmt->cols - 1) / f->fmt->cols;
    a->n_unit = a->m[0].w.rows / per;
    a->unit_codes = per * (int)a->m[0].w.row_bytes, a->unit_scales = per * (int)a->m[0].w.scale_row_bytes;
    a->step_codes = (int)a->m[0].stride, a->step_scales = (int)a->m[0].scale_stride;
    a->line = cu_digits_line(a->n_step * f->fmt->cols);
    for (int warps = warps_for(rows_in * a->n_step); warps > 0; warps /= 2) {
        a->at_x = warps * f->fmt->ring * f->fmt->slot;
        f->smem = (size_t)a->at_x + (size_t)rows_in * (size_t)a->line;
        a->at_red = (int)f->smem;
        f->smem += (size_t)(CU_MOE_INT_UNITS * warps * 2 * CU_TILE + 16) * sizeof(float);
        f->warps = (unsigned)warps;
        if (f->smem <= cu->smem_max) break;
        if (warps == 1) return false;
    }
    a->turn_k = (int)f->warps / a->n_step, a->turn_s = (int)f->warps % a->n_step;
    const int64_t units = (int64_t)a->n_unit * (down ? 1 : a->n_used), want = (2 * cu->n_sm + rows - 1) / rows;
    const int64_t turns = (units + want - 1) / want;
    f->grid = (unsigned)((units + turns - 1) / turns);
    return true;
}

/* The same where the format has such kernels; where they do not fit, another one takes over and false is returned. */
static bool as_integers(const fa_cuda *cu, few *f, const fa_weight *w, bool down, int64_t rows) {
    f->as_int = !cu->be.exact && f->fmt->wide && lay_out_int(cu, f, down, rows);
    if (f->as_int || cu->be.exact || !f->fmt->wide) return f->as_int;
    f->fmt = cu_stream_find_any(w);
    return false;
}

/* Elements of a row of h. */
static int64_t h_pitch(const fa_moe *m) { return (int64_t)up_to((size_t)m->up.w[0].rows, 8); }

/* Bytes of the hidden rows. */
static int64_t hidden_bytes(const fa_rec *r) {
    return r->in[0].dim[0] * r->p.moe.n_used * (int64_t)up_to((size_t)h_pitch(r->p.moe.moe) * 4, 16);
}
/* With adapters of the experts: the gates' results behind them, then u. */
static uint8_t *gate_rows(const fa_rec *r) { return (uint8_t *)r->work + hidden_bytes(r); }

/* `up` takes one launch, or two where gate and up projection have different formats, or where adapters change them:
 * then their results are as they are, in two places. Then `down`. */
static int plan_few(const fa_cuda *cu, const fa_rec *r, few run[3], int *n_run, fa_error *err) {
    const fa_moe *m = r->p.moe.moe;
    const bool exact = cu->be.exact, gated = m->gate.n > 0, lora = cu_moe_lora_on(r, true);
    const cu_stream_fmt *up = cu_stream_find_moe(&m->up.w[0]), *down = cu_stream_find_moe(&m->down.w[0]),
                        *gate = gated ? cu_stream_find_moe(&m->gate.w[0]) : up;
    if (!up || !down || !gate) {
        char buf[32];
        const fa_weight *w = !up ? &m->up.w[0] : !down ? &m->down.w[0] : &m->gate.w[0];
        return fa_fail(err, FFAI_ENOTSUP, "%s: no kernel for experts in %s", w->name ? w->name : "experts",
                       fa_weight_fmt_text(w, buf));
    }
    cu_moe_few_args a;
    memset(&a, 0, sizeof a);
    a.n_expert = (int)m->up.n, a.n_used = r->p.moe.n_used;
    a.choice = (const float *)r->in[1].data;
    a.act = m->act, a.limit = m->limit, a.scale = r->p.moe.scale, a.add = r->p.moe.add;
    a.x = r->in[0].data, a.x_type = r->in[0].dtype, a.ldx = (int)r->in[0].dim[1];
    a.vec = a.ldx % 8 == 0 && (uintptr_t)a.x % 16 == 0;
    a.out = r->work, a.ld = (int)h_pitch(m);
    const bool apart = gated && (gate != up || lora), both = gated && !apart;
    a.out_type = exact || apart || lora ? FA_F32 : FA_BF16;
    int n = 0;
    for (int i = apart ? 0 : 1; i < 2; i++, n++) {
        run[n].a = a;
        run[n].fmt = i ? up : gate;
        run[n].a.n_mat = both ? 2 : 1;
        run[n].a.m[0] = mat_of(both || i == 0 ? &m->gate : &m->up);
        run[n].a.m[1] = mat_of(&m->up);
        run[n].a.end = lora ? CU_MOE_GATE : !gated ? CU_MOE_ACT : both ? CU_MOE_GLU : i ? CU_MOE_WITH : CU_MOE_GATE;
        if (lora && i == 0) run[n].a.out = gate_rows(r);
        if (run[n].a.n_mat == 1) run[n].a.m[1] = run[n].a.m[0];
        if (as_integers(cu, &run[n], i ? &m->up.w[0] : &m->gate.w[0], false, r->in[0].dim[0])) continue;
        lay_out(&run[n], exact, CU_MOE_UP_WARPS, CU_MOE_UP_WARPS / run[n].a.n_mat, 1, CU_MOE_UP_WARPS);
    }
    const int parts = CU_MOE_DOWN_WARPS / a.n_used;
    run[n].a = a;
    run[n].fmt = down;
    run[n].a.m[0] = run[n].a.m[1] = mat_of(&m->down);
    run[n].a.n_mat = 1;
    run[n].a.x = r->work, run[n].a.x_type = a.out_type, run[n].a.ldx = a.ld, run[n].a.vec = 1;
    run[n].a.out = r->out.data, run[n].a.out_type = FA_F32, run[n].a.ld = (int)r->out.dim[1];
    run[n].a.early = !lora;
    if (!as_integers(cu, &run[n], &m->down.w[0], true, r->in[0].dim[0]))
        lay_out(&run[n], exact, CU_MOE_DOWN_WARPS, parts < 1 ? 1 : parts, CU_MOE_DOWN_WARPS,
                a.n_used * (parts < 1 ? 1 : parts));
    *n_run = n + 1;
    for (int i = 0; i <= n; i++)
        if (run[i].smem > cu->smem_max)
            return fa_fail(err, FFAI_ENOTSUP, "%s: experts of %d columns do not fit the %zu bytes of shared memory",
                           m->up.w[0].name ? m->up.w[0].name : "experts", run[i].a.m[0].w.cols, cu->smem_max);
    return 0;
}

/* Behind the hidden rows. */
static int64_t digit_bytes(const fa_rec *r) {
    const int64_t cols = (int64_t)up_to((size_t)r->in[0].dim[1], 256);
    return cols < INT32_MAX / 4 ? r->in[0].dim[0] * cu_digits_line((int)cols) : 0;
}

cu_digits cu_moe_digits(const fa_cuda *cu, const fa_rec *r) {
    cu_digits d = {NULL, 0, 0, 0};
    few run[3];
    int n;
    if (r->in[0].dim[0] > FEW || cu_moe_lora_on(r, true) || cu_moe_lora_on(r, false) ||
        plan_few(cu, r, run, &n, NULL) || n != 2 || !run[0].as_int)
        return d;
    d.bits = run[0].a.m[0].w.bits, d.cols = run[0].a.n_step * run[0].fmt->cols, d.line = run[0].a.line;
    d.to = (uint8_t *)r->work + hidden_bytes(r);
    return d;
}

/* What adapters make of gate and up, with the activation, */
static void few_adapt(fa_cuda *cu, const fa_rec *r, const cu_batch *b, float *u) {
    const fa_moe *m = r->p.moe.moe;
    const cu_moe_lora_rows x = {r->in[0].data, r->in[0].dtype, r->in[0].dim[1], true};
    const cu_moe_lora_rows gate = {m->gate.n ? gate_rows(r) : NULL, FA_F32, h_pitch(m), false},
                           h = {r->work, FA_F32, h_pitch(m), false};
    cu_moe_lora(cu, r, b, 0, NULL, x, gate, u);
    cu_moe_lora(cu, r, b, 1, NULL, x, h, u);
    cu_moe_lora_activate(cu, r, gate, h, h);
}

static void few_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    few run[3];
    fa_error err = {};
    int n = 0;
    if (plan_few(cu, r, run, &n, &err)) {
        cu_fail(cu, err.code, "%s", err.msg);
        return;
    }
    const unsigned rows = (unsigned)r->in[0].dim[0];
    float *u = (float *)(void *)(gate_rows(r) + hidden_bytes(r));
    for (int i = 0; i < n; i++) {
        cu_moe_few_args *a = &run[i].a;
        const bool down = i == n - 1;
        if (down && cu_moe_lora_on(r, true)) few_adapt(cu, r, b, u);
        const bool whole = down || run[i].as_int; /* blocks see a whole row's choices */
        if (cu->digits == r && i == 0) a->digits = (const uint8_t *)r->work + hidden_bytes(r);
        const dim3 grid(run[i].grid, whole ? rows : rows * (unsigned)a->n_used);
        const int kernel = (cu->be.exact ? CU_MOE_UP_EXACT : CU_MOE_UP) + down;
        cu_launch_as(cu, down ? "moe down" : "moe up", run[i].fmt->moe[kernel], grid, (int)run[i].warps * CU_WARP,
                     run[i].smem, *a);
    }
    /* and of down, in the sum */
    const cu_moe_few_args *a = &run[n - 1].a;
    const cu_moe_lora_rows h = {(void *)a->x, a->x_type, a->ldx, false}, none = {NULL, 0, 0, false};
    cu_moe_lora(cu, r, b, 2, NULL, h, none, u);
}

/* ---- the operation ---- */

static int64_t moe_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    const fa_moe *m = r->p.moe.moe;
    const int64_t n = r->in[0].dim[0];
    if (check_stack(&m->gate, "gate", err) || check_stack(&m->up, "up", err) || check_stack(&m->down, "down", err))
        return -1;
    if ((r->in[0].dtype != FA_F32 && r->in[0].dtype != FA_BF16) || r->out.dtype != FA_F32)
        return fa_fail(err, FFAI_ENOTSUP, "no kernel for experts of %s", fa_dtype_name((fa_dtype)r->in[0].dtype));
    if (n > FEW) return cu_moe_many_work(cu, r, err);
    few run[3];
    int k;
    const int rc = plan_few(cu, r, run, &k, err);
    if (rc) return rc;
    if (cu_moe_lora_on(r, true) || cu_moe_lora_on(r, false)) return 2 * hidden_bytes(r) + cu_moe_lora_bytes(r);
    return hidden_bytes(r) + digit_bytes(r);
}

static void moe_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    if (r->in[0].dim[0] > FEW)
        cu_moe_many_launch(cu, r, b);
    else
        few_launch(cu, r, b);
    cu->digits = NULL;
}

extern const cu_op cu_op_moe = {moe_launch, moe_work};
