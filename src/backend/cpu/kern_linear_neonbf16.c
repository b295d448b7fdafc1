/* Products of bf16 weights with bf16 activations on machines with FEAT_BF16: BFMMLA multiplies two input rows by two
 * weight rows over four columns, four times the products of an f32 fma. It rounds sums its own way (to odd, whatever
 * the mode is) and counts subnormal values as zero.
 *
 * For many input rows only: with few of them the speed of memory is the limit, and linear_f32 reads the same bytes. A
 * panel of up to NV * 4 weight rows is interleaved in scratch as [columns / 4][rows / 2][2][4]; blocks of CB columns
 * stay in L1 while MB input rows pass. Accumulators are [x0 w0, x0 w1, x1 w0, x1 w1]; a last odd input row is
 * multiplied as a pair with itself. */
#include "backend/cpu/kern_arm_neon.h"

enum {
    NV = 3,   /* vectors of four weight rows in a register tile */
    NP = 4,   /* input pairs in a register tile */
    CB = 512, /* columns of a panel block: 12 KiB */
    MB = 128  /* input rows that pass over one panel before the next block */
};

/* Within the f32 panel of the levels below, [K][12] and [MB][12] floats, that linear_scratch counts. */
typedef struct panel {
    float *acc;  /* [MB][nr] sums between blocks */
    uint16_t *w; /* [columns, a multiple of 8][nr] */
} panel;

static panel panel_at(void *scratch) {
    panel p = {.acc = (float *)scratch};
    p.w = (uint16_t *)(void *)(p.acc + (size_t)MB * NV * LN);
    return p;
}

/* Eight stored values, of which `left` are there, as fours; zeros after them */
INLINE uint64x2_t load_8(const uint8_t *p, int64_t left) {
    uint8_t part[16] = {0};
    if (left >= 8) return vreinterpretq_u64_u8(vld1q_u8(p));
    memcpy(part, p, (size_t)left * 2);
    return vreinterpretq_u64_u8(vld1q_u8(part));
}

/* Rows [r, r + n) of w into a panel of nr = nv * 4 rows; rows past n and columns past K are zeros. */
static void panel_fill(const fa_weight *w, int64_t r, int n, int nv, const panel *p) {
    const int64_t K = w->cols, nr = nv * LN;
    for (int i = 0; i < nr; i += 2) {
        const uint8_t *row = w->codes + (size_t)(i < n ? r + i : r) * w->row_bytes, *next = row;
        if (i + 1 < n) next += w->row_bytes;
        uint16_t *to = p->w + i * 4;
        for (int64_t k = 0; k < K; k += 8, to += 8 * nr) {
            const uint64x2_t a = load_8(row + 2 * k, i < n ? K - k : 0),
                             b = load_8(next + 2 * k, i + 1 < n ? K - k : 0);
            vst1q_u16(to, vreinterpretq_u16_u64(vzip1q_u64(a, b)));
            vst1q_u16(to + 4 * nr, vreinterpretq_u16_u64(vzip2q_u64(a, b)));
        }
    }
}

/* One register tile over a block of columns. */
typedef struct tile {
    const uint16_t *w;
    const uint16_t *x; /* first input row at the block's first column; rows ldx apart */
    int64_t n, ldx;    /* columns */
    float *acc;
    bool first, last, add;
    float *y;
    int64_t ldy;
    int rows, there; /* input rows, weight rows that are there */
} tile;

/* Four columns of two input rows, `left` of them there */
INLINE bfloat16x8_t input_pair(const uint16_t *x, const uint16_t *y, int64_t left) {
    const size_t size = left >= 4 ? 8 : (size_t)left * 2;
    uint64_t a = 0, b = 0;
    memcpy(&a, x, size);
    memcpy(&b, y, size);
    return vreinterpretq_bf16_u64(vcombine_u64(vcreate_u64(a), vcreate_u64(b)));
}

/* f += four columns */
INLINE void tile_four(const int np, const int nv, int64_t left, const uint16_t *w, const uint16_t *x, int64_t ldx,
                      vf f[][2 * NV]) {
    bfloat16x8_t a[NP];
    for (int i = 0; i < np; i++) a[i] = input_pair(x + 2 * i * ldx, x + (2 * i + 1) * ldx, left);
    for (int v = 0; v < 2 * nv; v++) {
        const bfloat16x8_t b = vreinterpretq_bf16_u16(vld1q_u16(w + v * 8));
        for (int i = 0; i < np; i++) f[i][v] = vbfmmlaq_f32(f[i][v], a[i], b);
    }
}

INLINE void tile_run(const int np, const int nv, const tile *t) {
    const int64_t ldx = t->rows == 1 ? 0 : t->ldx;
    vf f[NP][2 * NV];
    for (int i = 0; i < np; i++)
        for (int v = 0; v < 2 * nv; v++) f[i][v] = t->first ? vf_zero() : vf_load(t->acc + (i * 2 * nv + v) * LN);
    const uint16_t *w = t->w, *x = t->x;
    int64_t k = t->n;
    for (; k >= 4; k -= 4, w += 4 * nv * LN, x += 4) tile_four(np, nv, 4, w, x, ldx, f);
    if (k) tile_four(np, nv, k, w, x, ldx, f);
    for (int i = 0; i < np; i++)
        for (int v = 0; v < nv; v++) {
            if (!t->last) {
                vf_store(t->acc + (i * nv + v) * 2 * LN, f[i][2 * v]);
                vf_store(t->acc + (i * nv + v) * 2 * LN + LN, f[i][2 * v + 1]);
                continue;
            }
            const int n = t->there - v * LN < LN ? t->there - v * LN : LN;
            tile_untangle(&f[i][2 * v], &f[i][2 * v + 1]);
            for (int j = 0; j < 2 && 2 * i + j < t->rows; j++) {
                float *out = t->y + (2 * i + j) * t->ldy + v * LN;
                vf_storen(out, t->add ? vf_add(vf_loadn(out, n), f[i][2 * v + j]) : f[i][2 * v + j], n);
            }
        }
}

/* Every register tile as a function, so that each gets its own registers. */
#define BTILES_NP(X, nv) X(1, nv) X(2, nv) X(4, nv)
#define BTILES(X)        BTILES_NP(X, 1) BTILES_NP(X, 2) BTILES_NP(X, 3)
#define BTILE(np, nv)                                                                                                  \
    static NOINLINE void tile_##np##_##nv(const tile *t) { tile_run(np, nv, t); }
BTILES(BTILE)
#define BTILE_NAME(np, nv) [nv - 1][np - 1] = tile_##np##_##nv,
static void (*const tiles[NV][NP])(const tile *t) = {BTILES(BTILE_NAME)};

/* M <= MB input rows over the whole panel. */
static void panel_run(const panel *p, int64_t K, int nv, int n, const uint16_t *x, int64_t ldx, int64_t M, float *y,
                      int64_t ldy, bool add) {
    const int64_t nr = nv * LN;
    for (int64_t k = 0; k < K; k += CB) {
        tile t = {.w = p->w + k * nr, .ldx = ldx, .first = k == 0, .last = k + CB >= K, .add = add, .ldy = ldy};
        t.n = t.last ? K - k : CB;
        t.there = n;
        for (int64_t m = 0; m < M; m += t.rows) {
            t.rows = M - m >= 8 ? 8 : M - m >= 4 ? 4 : M - m >= 2 ? 2 : 1;
            t.x = x + m * ldx + k;
            t.acc = p->acc + m * nr;
            t.y = y + m * ldy;
            tiles[nv - 1][(t.rows + 1) / 2 - 1](&t);
        }
    }
}

static void linear_bf16(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const uint16_t *x, int64_t ldx,
                        int64_t M, float *y, int64_t ldy, bool add, void *scratch) {
    (void)k;
    const panel p = panel_at(scratch);
    for (int64_t r = r0; r < r1; r += NV * LN) {
        const int n = r1 - r < NV * LN ? (int)(r1 - r) : NV * LN, nv = (n + LN - 1) / LN;
        panel_fill(w, r, n, nv, &p);
        for (int64_t m = 0; m < M; m += MB)
            panel_run(&p, w->cols, nv, n, x + m * ldx, ldx, m + MB < M ? MB : M - m, y + m * ldy + r, ldy, add);
    }
}

void fa_kern_linear_init_neonbf16(fa_kernels *k) { k->linear_bf16 = linear_bf16; }
