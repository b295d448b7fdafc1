/* Linear records with up to 16 input rows on the device (stream.cuh): every operation, the float formats, odd shapes,
 * inputs that need several chunks, both precisions. */
#include "cuda/harness.h"

#include "ops/ops.h"

typedef struct shape {
    int64_t rows, cols;
} shape;

/* few columns; a row that is no multiple of 16 bytes; more tiles than blocks; many columns; one more than a step */
static const shape shapes[] = {{1, 1}, {7, 3}, {40, 64}, {33, 100}, {3001, 72}, {20, 3000}, {17, 65}, {130, 520}};
static const int rows_of_input[] = {1, 2, 5, 8, 9, 16};
static const fa_weight kinds[] = {{.fmt = FA_FMT_F32}, {.fmt = FA_FMT_F16}, {.fmt = FA_FMT_BF16}};

enum { N_SHAPE = sizeof shapes / sizeof *shapes, N_ROWS = sizeof rows_of_input / sizeof *rows_of_input, N_KIND = 3 };

/* exact: f32 sums in another order; fast: 8 bits of the input, of gates and of results */
static harness *open_mode(bool exact) {
    harness *h = hn_open(&(hn_opts){.exact = exact});
    if (exact)
        hn_limits(h, 1e-5, 1e-11);
    else
        hn_limits(h, 3e-2, 3e-5);
    return h;
}

typedef struct linear_case {
    harness *h;
    const float *x, *out;
    hn_linear *lin;
    hn_norm *post;
    int64_t M;
    fa_dtype type;
    fa_tensor y; /* the device's */
} linear_case;

static void linear_body(fa_cx *cx, int side, void *arg) {
    linear_case *c = arg;
    const fa_linear *lin = &c->lin->at[side];
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, lin->w.cols, side == HN_DEV ? c->type : FA_F32);
    c->y = fa_linear_op(cx, x, lin);
    hn_expect(c->h, side, "y", c->y);
}

static void add_body(fa_cx *cx, int side, void *arg) {
    linear_case *c = arg;
    const fa_linear *lin = &c->lin->at[side];
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, lin->w.cols, side == HN_DEV ? c->type : FA_F32);
    fa_tensor out = hn_input(c->h, cx, side, c->out, c->M, lin->w.rows, FA_F32);
    fa_linear_add(cx, out, x, lin, c->post ? &c->post->at[side] : NULL, 1);
    hn_expect(c->h, side, "h", out);
}

static void linear_cases(bool exact) {
    harness *h = open_mode(exact);
    for (int s = 0; s < N_SHAPE; s++)
        for (int m = 0; m < N_ROWS; m++)
            for (int f = 0; f < N_KIND; f++)
                for (int t = 0; t < (exact ? 1 : 2); t++) {
                    const int64_t M = rows_of_input[m];
                    linear_case c = {.h = h, .M = M, .type = t ? FA_BF16 : FA_F32};
                    if (hn_emulated() && shapes[s].rows * shapes[s].cols * M > 1 << 20) continue;
                    hn_case(h, "%s [%d, %d] x %d rows of %s", fa_qfmts[kinds[f].fmt].name, (int)shapes[s].rows,
                            (int)shapes[s].cols, (int)M, t ? "bf16" : "f32");
                    hn_seqs(h, (hn_seq[]){{.n = (int)M}}, 1);
                    c.x = hn_floats(h, M * shapes[s].cols, 2);
                    c.out = hn_floats(h, M * shapes[s].rows, 1);
                    c.lin = hn_make_linear(h, kinds[f], shapes[s].rows, shapes[s].cols, (s + m) % 2);
                    hn_run(h, linear_body, &c);
                    hn_run(h, add_body, &c);
                    c.post = hn_make_norm(h, shapes[s].rows, f ? 1.0f : 0.0f, m != 1);
                    hn_run(h, add_body, &c);
                }
    hn_close(h);
}
static void linear_exact(void **state) { (void)state, linear_cases(true); }
static void linear_fast(void **state) { (void)state, linear_cases(false); }

/* Inputs beyond shared memory: chunks, with sums kept from one to the next. */
static void chunks(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        harness *h = open_mode(exact);
        for (int f = 0; f < N_KIND; f++) {
            linear_case c = {.h = h, .M = f ? 16 : 7, .type = exact ? FA_F32 : FA_BF16};
            const int64_t rows = 29, cols = exact ? 2500 + 7 * f : 9000 + 9 * f;
            hn_case(h, "%s: %d columns, %d rows", fa_qfmts[kinds[f].fmt].name, (int)cols, (int)c.M);
            hn_seqs(h, (hn_seq[]){{.n = (int)c.M}}, 1);
            c.x = hn_floats(h, c.M * cols, 1);
            c.out = hn_floats(h, c.M * rows, 1);
            c.lin = hn_make_linear(h, kinds[f], rows, cols, true);
            hn_run(h, linear_body, &c);
            c.post = hn_make_norm(h, rows, 0, true);
            hn_run(h, add_body, &c);
        }
        hn_close(h);
    }
}

typedef struct mlp_case {
    harness *h;
    const float *x;
    hn_norm *norm;
    hn_linear *gate, *up;
    int64_t M;
    fa_act_fn act;
} mlp_case;

static void mlp_body(fa_cx *cx, int side, void *arg) {
    mlp_case *c = arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, c->gate->at[side].w.cols, FA_F32);
    hn_expect(c->h, side, "mlp",
              fa_norm_mlp_up(cx, x, &c->norm->at[side], &c->gate->at[side], &c->up->at[side], c->act));
}

static void mlp(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        harness *h = open_mode(exact);
        /* products of two or three results: the largest are far above the mean */
        hn_limits(h, exact ? 1e-4 : 1e-1, exact ? 1e-10 : 1e-4);
        int n = 0;
        for (int s = 1; s < N_SHAPE; s++)
            for (int m = 0; m < N_ROWS; m++, n++) {
                const int64_t M = rows_of_input[m];
                const fa_weight *kind = &kinds[n % N_KIND], *other = n % 5 == 0 ? &kinds[(n + 1) % N_KIND] : kind;
                mlp_case c = {.h = h, .M = M, .act = (fa_act_fn)(n % (FA_ACT_LINEAR + 1))};
                if (hn_emulated() && shapes[s].rows * shapes[s].cols * M > 1 << 20) continue;
                hn_case(h, "%s and %s [%d, %d] x %d rows, activation %d", fa_qfmts[kind->fmt].name,
                        fa_qfmts[other->fmt].name, (int)shapes[s].rows, (int)shapes[s].cols, (int)M, (int)c.act);
                hn_seqs(h, (hn_seq[]){{.n = (int)M}}, 1);
                c.x = hn_floats(h, M * shapes[s].cols, n % 3 ? 3 : 3000);
                c.norm = hn_make_norm(h, shapes[s].cols, n % 2 ? 1.0f : 0.0f, n % 4 != 3);
                c.gate = hn_make_linear(h, *kind, shapes[s].rows, shapes[s].cols, n % 2);
                c.up = hn_make_linear(h, *other, shapes[s].rows, shapes[s].cols, n % 2);
                hn_run(h, mlp_body, &c);
            }
        /* two halves of a pair through several chunks; sums of squares out of f32's range */
        for (int big = 0; big < 3; big++) {
            mlp_case c = {.h = h, .M = 16, .act = FA_ACT_SILU};
            const int64_t cols = big ? 264 : exact ? 2500 : 5000;
            hn_case(h, "chunks and ranges %d", big);
            hn_seqs(h, (hn_seq[]){{.n = 16}}, 1);
            c.x = hn_floats(h, c.M * cols, big == 2 ? 3e18f : big == 1 ? 1e-22f : 1);
            c.norm = hn_make_norm(h, cols, 0, true);
            c.gate = hn_make_linear(h, kinds[2], 37, cols, true);
            c.up = hn_make_linear(h, kinds[2], 37, cols, true);
            hn_run(h, mlp_body, &c);
        }
        hn_close(h);
    }
}

typedef struct qkv_case {
    harness *h;
    const float *x, *table;
    hn_norm *norm, *q_norm, *k_norm, *v_norm;
    hn_linear *q, *k, *v; /* k NULL: none, nor v */
    hn_kv *kv;
    int64_t M, n_pair;
    bool interleaved;
} qkv_case;

static void qkv_body(fa_cx *cx, int side, void *arg) {
    qkv_case *c = arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, c->q->at[side].w.cols, FA_F32), table = {0};
    if (c->n_pair) table = hn_input(c->h, cx, side, c->table, c->M, 2 * c->n_pair, FA_F32);
    fa_qkv w = {.q = c->q->at[side],
                .q_norm = c->q_norm ? &c->q_norm->at[side] : NULL,
                .k_norm = c->k_norm ? &c->k_norm->at[side] : NULL,
                .v_norm = c->v_norm ? &c->v_norm->at[side] : NULL};
    if (c->k) w.k = c->k->at[side], w.v = c->v->at[side];
    fa_qkv *kept = hn_host(c->h, sizeof *kept); /* the record points into it */
    *kept = w;
    fa_tensor q = fa_norm_qkv(cx, x, &c->norm->at[side], kept, table, c->interleaved, &c->kv->at[side]);
    hn_expect(c->h, side, "q", q);
    if (c->k && side == HN_DEV) hn_expect_kv(c->h, side, c->kv);
}

static void qkv(void **state) {
    (void)state;
    static const struct {
        int n_q, n_kv, dim, n_pair;
        int64_t cols;
    } heads[] = {{1, 1, 2, 1, 9},     {4, 2, 16, 8, 64},    {3, 1, 10, 3, 100}, {8, 2, 80, 40, 96},
                 {2, 2, 128, 64, 72}, {2, 1, 64, 16, 2100}, {5, 5, 36, 0, 40},  {1, 1, 512, 256, 33}};
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16, FA_I8};
    for (int exact = 0; exact < 2; exact++) {
        harness *h = open_mode(exact);
        int n = 0;
        for (size_t s = 0; s < sizeof heads / sizeof *heads; s++)
            for (int m = 0; m < N_ROWS; m++, n++) {
                const int64_t M = rows_of_input[m], cols = heads[s].cols, dim = heads[s].dim;
                const fa_weight *kind = &kinds[n % N_KIND], *other = n % 4 == 0 ? &kinds[(n + 1) % N_KIND] : kind;
                qkv_case c = {.h = h, .M = M, .n_pair = heads[s].n_pair, .interleaved = n / 3 % 2};
                if (hn_emulated() && (heads[s].n_q + 2 * heads[s].n_kv) * dim * cols * M > 1 << 20) continue;
                hn_case(h, "%d + %d heads of %d, %d pairs, %d columns, %d rows, %s and %s", heads[s].n_q, heads[s].n_kv,
                        (int)dim, heads[s].n_pair, (int)cols, (int)M, fa_qfmts[kind->fmt].name,
                        fa_qfmts[other->fmt].name);
                /* rows of one sequence, or decode rows of several */
                hn_seq seq[16];
                for (int i = 0; i < M; i++) seq[i] = (hn_seq){.past = 61 + 3 * i, .n = 1};
                if (n % 2)
                    hn_seqs(h, (hn_seq[]){{.past = 60, .n = (int)M}}, 1);
                else
                    hn_seqs(h, seq, (int)M);
                c.x = hn_floats(h, M * cols, 2);
                if (c.n_pair) c.table = hn_floats(h, M * 2 * c.n_pair, 1);
                c.norm = hn_make_norm(h, cols, 0, true);
                if (n % 3) c.q_norm = hn_make_norm(h, dim, 1, true);
                if (n % 3 == 2) c.k_norm = hn_make_norm(h, dim, 0, n % 2);
                c.q = hn_make_linear(h, *kind, heads[s].n_q * dim, cols, n % 2);
                c.k = hn_make_linear(h, *kind, heads[s].n_kv * dim, cols, n % 4 == 1);
                c.v = hn_make_linear(h, *other, heads[s].n_kv * dim, cols, n % 2);
                if (n % 5 == 2) c.v_norm = hn_make_norm(h, dim, 0, n % 2);
                c.kv = hn_make_kv(h, heads[s].n_kv, (int)dim, types[exact ? n % 2 * 3 : n % 4], 0);
                hn_run(h, qkv_body, &c);
                if (n % 4 != 3) continue;
                c.k = c.v = NULL; /* queries alone */
                hn_run(h, qkv_body, &c);
            }
        hn_close(h);
    }
}

/* Every format in tiles whose rows rotation pairs, beside a float format. */
static void formats(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        harness *h = open_mode(exact);
        for (int f = 0; f < hn_n_kinds; f++) {
            const int M = f % 3 ? 1 : 9, cols = 512, dim = 24;
            if (!hn_fits(hn_kinds[f], cols)) continue;
            qkv_case c = {.h = h, .M = M, .n_pair = f % 4 ? 12 : 8, .interleaved = f % 5 == 4};
            hn_case(h, "%s, bits %d, groups of %d, scales %d", fa_qfmts[hn_kinds[f].fmt].name, hn_kinds[f].bits,
                    hn_kinds[f].group, hn_kinds[f].scale_dtype);
            hn_seqs(h, (hn_seq[]){{.past = 5, .n = M}}, 1);
            c.x = hn_floats(h, M * cols, 2);
            c.table = hn_floats(h, M * 2 * c.n_pair, 1);
            c.norm = hn_make_norm(h, cols, 0, true);
            c.q = hn_make_linear(h, hn_kinds[f], 2 * dim, cols, f % 2);
            c.k = hn_make_linear(h, hn_kinds[f], dim, cols, f % 2);
            c.v = hn_make_linear(h, kinds[f % N_KIND], dim, cols, f % 2);
            c.kv = hn_make_kv(h, 1, dim, exact ? FA_F32 : FA_BF16, 0);
            hn_run(h, qkv_body, &c);

            linear_case many = {.h = h, .M = 16, .type = exact ? FA_F32 : FA_BF16};
            const int64_t long_row = exact ? 4096 : 10240;
            if (f % 5) continue;
            hn_case(h, "%s, bits %d, groups of %d: %d columns, 16 rows", fa_qfmts[hn_kinds[f].fmt].name,
                    hn_kinds[f].bits, hn_kinds[f].group, (int)long_row);
            hn_seqs(h, (hn_seq[]){{.n = 16}}, 1);
            many.x = hn_floats(h, 16 * long_row, 1);
            many.lin = hn_make_linear(h, hn_kinds[f], 9, long_row, true);
            hn_run(h, linear_body, &many);
        }
        hn_close(h);
    }
}

/* The same rows alone and among others, the same step again: the same bits. */
static void same_bits(void **state) {
    (void)state;
    harness *h = open_mode(false);
    linear_case c = {.h = h, .M = 16, .type = FA_F32};
    const int64_t rows = 50, cols = 330;
    hn_case(h, "alone and together");
    c.lin = hn_make_linear(h, kinds[2], rows, cols, true);
    const float *x = hn_floats(h, c.M * cols, 1), *all = NULL;
    static const int first[] = {0, 0, 0, 11}, count[] = {16, 16, 8, 1};
    for (int i = 0; i < 4; i++) {
        hn_seqs(h, (hn_seq[]){{.n = count[i]}}, 1);
        c.M = count[i];
        c.x = x + first[i] * cols;
        hn_run(h, linear_body, &c);
        const float *y = hn_values(h, HN_DEV, c.y);
        if (!all) all = y;
        assert_memory_equal(y, all + first[i] * rows, (size_t)(count[i] * rows) * sizeof *y);
    }
    hn_close(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(linear_exact), cmocka_unit_test(linear_fast),
                                       cmocka_unit_test(chunks),       cmocka_unit_test(mlp),
                                       cmocka_unit_test(qkv),          cmocka_unit_test(formats),
                                       cmocka_unit_test(same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
