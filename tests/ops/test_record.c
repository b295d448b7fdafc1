/* Recording: shape rules and the sticky error; walking a program: what an empty record costs; the page tables of the
 * cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cache/kv.h"
#include "ops/internal.h"

enum { ROWS = 3, DIM = 64 };

typedef struct fixture {
    fa_arena arena;
    fa_backend *be;
    fa_program prog;
    fa_batch batch;
    fa_cx cx;
} fixture;

static void begin(fixture *f, int n_thread) {
    fa_error err;
    memset(f, 0, sizeof *f);
    assert_int_equal(fa_arena_create(&f->arena, (size_t)1 << 30, NULL, &err), 0);
    assert_int_equal(fa_backend_cpu_create(&f->be, n_thread, NULL, true, &err), 0);
    f->batch = (fa_batch){.n_tok = ROWS, .n_seq = 1, .n_out = 1};
    f->cx = (fa_cx){.be = f->be, .arena = &f->arena, .prog = &f->prog, .batch = &f->batch, .layer = -1};
}

static void end(fixture *f) {
    fa_free(f->prog.rec);
    f->be->free(f->be);
    fa_arena_destroy(&f->arena);
}

static float weights[96 * DIM];
static fa_weight matrix(int64_t rows, int64_t cols) {
    return (fa_weight){.rows = rows,
                       .cols = cols,
                       .codes = (const uint8_t *)weights,
                       .row_bytes = (size_t)cols * 4,
                       .name = "test.weight"};
}

/* The first failure stays, names layer and operation, and nothing is recorded after it. */
static void test_sticky(void **state) {
    (void)state;
    fixture f;
    begin(&f, 1);
    fa_weight table = matrix(96, DIM);
    fa_linear right = {.w = matrix(32, DIM)}, wrong = {.w = matrix(32, 2 * DIM)};
    fa_tensor h = fa_embed(&f.cx, &table, 1);
    size_t mark = fa_layer_begin(&f.cx, 7);
    fa_tensor a = fa_linear_op(&f.cx, h, &right);
    int n = f.prog.n;
    assert_int_equal(n, 2);
    assert_int_equal(a.dim[1], 32);
    fa_tensor b = fa_linear_op(&f.cx, h, &wrong);
    assert_null(b.data);
    assert_int_equal(f.prog.n, n);
    assert_non_null(strstr(f.cx.err.msg, "layer 7: linear"));
    assert_non_null(strstr(f.cx.err.msg, "test.weight"));
    char msg[sizeof f.cx.err.msg];
    strcpy(msg, f.cx.err.msg);
    fa_add(&f.cx, a, b, 1);
    fa_softcap(&f.cx, b, 3);
    fa_linear_add(&f.cx, h, a, &wrong, NULL, 1);
    fa_norm_mlp_up(&f.cx, h, NULL, &right, &wrong, FA_ACT_SILU);
    fa_out_rows(&f.cx, b);
    fa_layer_end(&f.cx, mark);
    assert_int_equal(f.prog.n, n);
    assert_string_equal(f.cx.err.msg, msg);
    end(&f);
}

/* The same recording gets the same addresses: what replaying stands on. */
static void test_addresses(void **state) {
    (void)state;
    fixture f;
    begin(&f, 1);
    fa_weight table = matrix(96, DIM);
    fa_linear lin = {.w = matrix(DIM, DIM)};
    void *out[2];
    for (int i = 0; i < 2; i++) {
        fa_arena_reset(&f.arena, 0);
        f.prog.n = 0;
        fa_tensor h = fa_embed(&f.cx, &table, 1);
        size_t mark = fa_layer_begin(&f.cx, 0);
        fa_linear_add(&f.cx, h, fa_linear_op(&f.cx, h, &lin), &lin, NULL, 1);
        fa_layer_end(&f.cx, mark);
        out[i] = fa_linear_op(&f.cx, h, &lin).data;
    }
    assert_ptr_equal(out[0], out[1]);
    end(&f);
}

/* Rows given by the batch take the place of the table's. */
static void test_embedding_rows(void **state) {
    (void)state;
    fixture f;
    fa_error err;
    begin(&f, 1);
    int32_t tok[ROWS] = {5, 6, 7}, from[ROWS] = {-1, 1, -1};
    static float given[2 * DIM];
    for (int i = 0; i < 96 * DIM; i++) weights[i] = (float)i;
    for (int i = 0; i < 2 * DIM; i++) given[i] = -(float)i;
    f.batch.tok = tok;
    f.batch.embd = given;
    f.batch.embd_row = from;
    fa_weight table = matrix(96, DIM);
    fa_tensor h = fa_embed(&f.cx, &table, 2);
    assert_int_equal(f.be->run(f.be, &f.prog, &f.batch, NULL, &err), 0);
    for (int i = 0; i < DIM; i++) {
        assert_true(fa_f32(h)[i] == 2 * (float)(5 * DIM + i));
        assert_true(fa_f32(h)[DIM + i] == -(float)(DIM + i));
        assert_true(fa_f32(h)[2 * DIM + i] == 2 * (float)(7 * DIM + i));
    }
    end(&f);
}

/* ---- speculation trees ---- */

enum { HEADS = 4, KV_HEADS = 2, HEAD = 32, PAST = 70, NEW = 5, Q_DIM = HEADS * HEAD, KV_DIM = KV_HEADS * HEAD };

typedef struct tree_case {
    fa_kv_cache *kv;
    float q[(PAST + NEW) * Q_DIM], k[(PAST + NEW) * KV_DIM], v[(PAST + NEW) * KV_DIM];
} tree_case;

/* Appends rows row[0..n) of the case to slot 0 and attends; tree NULL: causal. out [n, Q_DIM]. */
static void attend_rows(tree_case *c, const int *row, int n, const uint64_t *tree, float *out) {
    fixture f;
    fa_error err;
    static int32_t hi[PAST + NEW], lo[PAST + NEW], place[PAST + NEW], tile_seq[PAST + NEW], tile_row[PAST + NEW];
    int32_t start[2] = {0, n}, from = c->kv->len[0];
    const fa_attn attn = {HEADS, KV_HEADS, HEAD, 0.3f, 0, NULL};
    begin(&f, 2);
    assert_int_equal(fa_kv_extend(c->kv, 0, from, from + n, &err), 0);
    f.be->max_pages = c->kv->page_stride;
    f.batch = (fa_batch){.n_tok = n,
                         .n_seq = 1,
                         .max_q = n > 1 ? n : 2 /* no split */,
                         .n_group = 1,
                         .row_start = start,
                         .kv_hi = hi,
                         .kv_lo = {lo},
                         .place = place,
                         .page = {c->kv->group[0].table},
                         .page_stride = c->kv->page_stride,
                         .tile_seq = tile_seq,
                         .tile_row = tile_row,
                         .tree = tree};
    for (int i = 0; i < n; i++) place[i] = from + i, hi[i] = from + i + 1;
    for (int i = 0; i < n; i += f.be->attend_tile) tile_row[f.batch.n_tile++] = i;
    fa_tensor q = fa_cx_tensor(&f.cx, FA_OP_NOP, n, Q_DIM), k = fa_cx_tensor(&f.cx, FA_OP_NOP, n, KV_DIM),
              v = fa_cx_tensor(&f.cx, FA_OP_NOP, n, KV_DIM);
    for (int i = 0; i < n; i++) {
        memcpy(fa_f32(q) + i * Q_DIM, c->q + row[i] * Q_DIM, Q_DIM * sizeof(float));
        memcpy(fa_f32(k) + i * KV_DIM, c->k + row[i] * KV_DIM, KV_DIM * sizeof(float));
        memcpy(fa_f32(v) + i * KV_DIM, c->v + row[i] * KV_DIM, KV_DIM * sizeof(float));
    }
    fa_append(&f.cx, k, v, &c->kv->layer[0]);
    fa_tensor a = fa_attend(&f.cx, q, &c->kv->layer[0], &attn);
    assert_int_equal(f.cx.err.code, 0);
    assert_int_equal(f.be->run(f.be, &f.prog, &f.batch, NULL, &err), 0);
    memcpy(out, a.data, (size_t)n * Q_DIM * sizeof(float));
    end(&f);
}

/* Every node of a tree attends as if its branch were the sequence. */
static void test_tree(void **state) {
    (void)state;
    static tree_case c;
    fa_error err;
    const fa_kv_spec spec = {.n_head = KV_HEADS, .head_dim = HEAD};
    const fa_kv_opts o = {.n_slot = 1, .n_ctx = 128, .n_chunk = 128, .dtype = FA_F32};
    for (size_t i = 0; i < sizeof c.q / sizeof *c.q; i++) c.q[i] = (float)(fa_rng_at(1, i) >> 40) * 0x1p-23f - 1;
    for (size_t i = 0; i < sizeof c.k / sizeof *c.k; i++) c.k[i] = (float)(fa_rng_at(2, i) >> 40) * 0x1p-23f - 1;
    for (size_t i = 0; i < sizeof c.v / sizeof *c.v; i++) c.v[i] = (float)(fa_rng_at(3, i) >> 40) * 0x1p-23f - 1;
    assert_int_equal(fa_kv_create(&c.kv, &spec, 1, &o, &err), 0);
    static float past[PAST * Q_DIM], tree[NEW * Q_DIM], branch[NEW * Q_DIM];
    int row[PAST];
    for (int i = 0; i < PAST; i++) row[i] = i;
    attend_rows(&c, row, PAST, NULL, past);
    /* 0 is the root; 1 and 2 are its children; 3 follows 1; 4 follows 2 */
    const uint64_t sees[NEW] = {1, 3, 5, 11, 21};
    const int path[NEW][3] = {{0}, {0, 1}, {0, 2}, {0, 1, 3}, {0, 2, 4}}, depth[NEW] = {1, 2, 2, 3, 3};
    for (int i = 0; i < NEW; i++) row[i] = PAST + i;
    attend_rows(&c, row, NEW, sees, tree);
    for (int node = 0; node < NEW; node++) {
        assert_int_equal(fa_kv_truncate(c.kv, 0, PAST, &err), 0);
        for (int i = 0; i < depth[node]; i++) row[i] = PAST + path[node][i];
        attend_rows(&c, row, depth[node], NULL, branch);
        for (int i = 0; i < Q_DIM; i++) {
            double d = (double)tree[node * Q_DIM + i] - (double)branch[(depth[node] - 1) * Q_DIM + i];
            if (!(d < 1e-5 && d > -1e-5)) fail_msg("node %d, value %d: differs by %g", node, i, d);
        }
    }
    fa_kv_free(c.kv);
}

/* A decode step of a 28-layer model without its work: 140 records. The limit is for idle cores; a loaded machine only
 * gets a message. */
static void test_empty_program(void **state) {
    (void)state;
    fixture f;
    fa_error err;
    begin(&f, 2);
    for (int i = 0; i < 28 * 5; i++) fa_cx_record(&f.cx, FA_OP_NOP, &(fa_rec){0});
    assert_int_equal(f.prog.n, 140);
    double best = 1;
    for (int i = 0; i < 200; i++) {
        double t0 = fa_now();
        assert_int_equal(f.be->run(f.be, &f.prog, &f.batch, NULL, &err), 0);
        double t = fa_now() - t0;
        if (t < best) best = t;
    }
    print_message("140 empty records, two threads: %.1f us\n", best * 1e6);
    end(&f);
}

/* ---- cache ---- */

#define HEADS_OF(n, dim, win, of)                                                                                      \
    { .n_head = n, .head_dim = dim, .window = win, .shared = of }

static int pages_in_use(const fa_kv_group *g) { return g->n_page - g->n_free; }

static void test_pages(void **state) {
    (void)state;
    fa_error err;
    fa_kv_cache *c;
    const fa_kv_spec spec[3] = {HEADS_OF(2, 32, 0, 0), HEADS_OF(2, 32, 100, 0), HEADS_OF(1, 64, 100, 0)};
    const fa_kv_opts o = {.n_slot = 2, .n_ctx = 1000, .n_chunk = 50, .dtype = FA_F16};
    int64_t bytes, per_token;
    assert_int_equal(fa_kv_size(spec, 3, &o, &bytes, &per_token, &err), 0);
    assert_int_equal(fa_kv_create(&c, spec, 3, &o, &err), 0);
    assert_int_equal(c->bytes, bytes);
    assert_int_equal(per_token, 2 * 2 * (2 * 32 + 2 * 32 + 64));
    assert_int_equal(c->n_group, 2);
    assert_int_equal(c->layer[1].group, c->layer[2].group);
    for (int32_t at = 0; at < 1000; at += 50) { /* the window group never needs more than it has */
        assert_int_equal(fa_kv_extend(c, 0, at, at + 50, &err), 0);
        assert_int_equal(fa_kv_extend(c, 1, at, at + 50, &err), 0);
        const fa_kv_group *g = &c->group[1];
        for (int32_t p = at - 99 > 0 ? at - 99 : 0; p < at + 50; p++) assert_true(g->table[p / FA_PAGE] >= 0);
    }
    assert_int_equal(pages_in_use(&c->group[0]), 32);
    assert_int_equal(pages_in_use(&c->group[1]), 2 * 5); /* all that there are: what has room stays */
    assert_true(fa_kv_extend(c, 0, 1000, 1001, &err) == FFAI_ELIMIT);
    assert_true(fa_kv_truncate(c, 0, 300, &err) == FFAI_ENOTSUP); /* its window is gone */
    assert_true(fa_kv_can_truncate(c, 0, 990) && !fa_kv_can_truncate(c, 0, 300) && !fa_kv_can_truncate(c, 0, 1001));
    assert_int_equal(fa_kv_truncate(c, 0, 990, &err), 0);
    assert_int_equal(c->len[0], 990);
    assert_int_equal(fa_kv_truncate(c, 0, 820, &err), 0); /* more than a chunk back, its window is still there */
    for (int32_t at = 820; at < 1000; at += 45) {
        assert_int_equal(fa_kv_extend(c, 0, at, at + 45, &err), 0);
        assert_true(pages_in_use(&c->group[1]) <= 2 * 5);
        for (int32_t p = at - 99; p < at + 45; p++) assert_true(c->group[1].table[p / FA_PAGE] >= 0);
    }
    fa_kv_reset(c, 0);
    fa_kv_reset(c, 1);
    for (int g = 0; g < 2; g++) assert_int_equal(pages_in_use(&c->group[g]), 0);
    fa_kv_free(c);
    /* layers that read another one's cache have no memory */
    const fa_kv_spec shared[5] = {HEADS_OF(2, 32, 0, 0), HEADS_OF(2, 32, 100, 0), HEADS_OF(1, 64, 100, 0),
                                  HEADS_OF(1, 64, 100, 3), HEADS_OF(2, 32, 0, 1)};
    int64_t more, more_per_token;
    assert_int_equal(fa_kv_size(shared, 5, &o, &more, &more_per_token, &err), 0);
    assert_true(more == bytes && more_per_token == per_token);
    assert_int_equal(fa_kv_create(&c, shared, 5, &o, &err), 0);
    assert_true(c->n_layer == 5 && c->n_own == 3 && c->own[2] == &c->layer[2]);
    assert_true(c->layer[3].k == c->layer[2].k && c->layer[3].v == c->layer[2].v && c->layer[3].group == 1);
    assert_true(c->layer[4].k == c->layer[0].k && c->layer[4].group == 0);
    assert_true(c->layer[0].n_page == 32 && c->layer[3].n_page == 10);
    fa_kv planned[5];
    assert_int_equal(fa_kv_layers(shared, 5, &o, planned, &err), 0);
    for (int i = 0; i < 5; i++) {
        fa_kv want = c->layer[i];
        want.k = want.v = NULL;
        assert_memory_equal(&planned[i], &want, sizeof want);
    }
    fa_kv_free(c);
    const fa_kv_opts huge = {.n_slot = 1, .n_ctx = INT32_MAX, .n_chunk = 1, .dtype = FA_F16};
    assert_true(fa_kv_create(&c, spec, 3, &huge, &err) < 0);
    assert_null(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sticky),         cmocka_unit_test(test_addresses),
                                       cmocka_unit_test(test_embedding_rows), cmocka_unit_test(test_tree),
                                       cmocka_unit_test(test_empty_program),  cmocka_unit_test(test_pages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
