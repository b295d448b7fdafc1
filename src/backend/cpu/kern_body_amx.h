/* Matrix products in tiles (Intel AMX), over a few tile operations that the including file provides: kern_linear_amx.c
 * has the instructions, tests/kern/amx_emulated.c has their published semantics in C. Static only; the vectors are
 * those of kern_x86_avx512.h.
 *
 * Provided (t, c, a, b: tile numbers, constants; stride in bytes):
 *   AMX_CONFIG(const amx_config *), AMX_RELEASE()
 *   AMX_ZERO(t), AMX_LOAD(t, p, stride), AMX_STORE(t, p, stride)
 *   AMX_DOT_SU(c, a, b)    c += a x b, s8 times u8, i32 sums
 *   AMX_DOT_BF16(c, a, b)  c += a x b, bf16, f32 sums
 *   AMX_FEW_Q8             linear_q8 for few input rows, where reading the weights is what takes the time
 *
 * A tile is up to 16 rows of 64 bytes. The left factor is input rows as they lie in memory; the right one is a panel of
 * weight rows, interleaved in fours of codes or pairs of bf16, [K / 4][rows][4]: 16 weight rows are 64 bytes of each of
 * its rows. Sums are [input row][weight row]. The last input rows that fill no tile are taken together with rows before
 * them, which are multiplied again but not written again, so that tiles have one shape per call.
 *
 * int8: sums must leave the tile after every group of 32 columns (16 with some formats), because each has its own
 * scales. Sums of MR x 16 NV stay in f32 registers over a block of columns; each group costs, per 16 sums, a load with
 * conversion and three multiplications (input scale, weight scale, weight minimum). Two sets of tiles take turns, so
 * that the tiles of the next group work while this group's sums are scaled.
 *
 * Expected rates (nothing here was measured; cycles from Intel's optimization manual: a dot product of tiles takes as
 * many cycles as the left one has rows, a load of a tile half as many, two 512-bit fma, two loads and one store per
 * cycle). Per group of 32 and 12 x 32 sums, 12288 products: 24 cycles of dots, 40 of loads, 24 of stores, 48 of
 * arithmetic; so about 250 products per cycle, where vpdpbusd in the panels of kern_body_linear.h reaches about 90.
 * Groups of 64 would halve the arithmetic; activations have groups of 32. bf16: 32 x 32 sums stay in four tiles, 16384
 * products per 64 cycles of dots and 32 of loads; 512 per cycle at best if L2 keeps up, where the f32 fma reaches 32.
 */
#ifndef FA_CPU_KERN_BODY_AMX_H
#define FA_CPU_KERN_BODY_AMX_H

/* What LDTILECFG reads. */
typedef struct amx_config {
    uint8_t palette, start_row, zero[14];
    uint16_t colsb[16]; /* bytes of a tile's rows */
    uint8_t rows[16];
} amx_config;

enum {
    AMX_NV = 2,        /* vectors of 16 weight rows in a panel */
    AMX_MR = 12,       /* input rows of a tile of int8: 24 vectors of sums and what scales them fit the registers */
    AMX_MB = 120,      /* input rows that pass over a block of an int8 panel before the next */
    AMX_KB = 512,      /* columns of a block, int8 and bf16 */
    AMX_FEW = 16,      /* int8: fewer input rows, and those turned for it, are left to AMX_FEW_Q8 */
    AMX_BF16_MR = 16,  /* input rows of a tile of bf16 */
    AMX_BF16_MB = 128, /* input rows that pass over a block of a bf16 panel */
    AMX_BF16_KS = 32   /* columns of a tile of bf16 */
};

/* Tiles 0 .. 3 sums, 4 and 5 input rows, 6 and 7 weights. */
static amx_config amx_shape(int input_rows, int input_bytes, int weight_rows) {
    amx_config c = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        c.rows[t] = (uint8_t)(t < 6 ? input_rows : weight_rows);
        c.colsb[t] = (uint16_t)(t == 4 || t == 5 ? input_bytes : 64);
    }
    return c;
}

INLINE int64_t amx_min(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- int8 ---- */

/* Not larger than the panel of the levels below, which linear_scratch counts: that has three vectors of rows. */
typedef struct amx_panel {
    uint8_t *codes;             /* [K / 4][nr][4], nr = nv * LN */
    float *scale, *min;         /* [K / ug][nr] */
    float *acc;                 /* [AMX_MB][nr]: sums between blocks of columns */
    uint8_t *row_codes;         /* [LN] rows row_ld bytes apart */
    float *row_scale, *row_min; /* [LN] rows ld floats apart */
    int64_t row_ld, ld;
} amx_panel;

static amx_panel amx_panel_at(void *scratch, int64_t K) {
    const int64_t nr = AMX_NV * LN;
    amx_panel p = {.row_ld = (K + 64 + 127) / 128 * 128 + 64, .ld = (K / 16 + 2 * LN + 15) / 16 * 16};
    p.acc = (float *)scratch;
    p.scale = p.acc + AMX_MB * nr;
    p.min = p.scale + nr * (K / 16);
    p.row_scale = p.min + nr * (K / 16);
    p.row_min = p.row_scale + LN * p.ld;
    p.codes = (uint8_t *)(p.row_min + LN * p.ld);
    p.row_codes = p.codes + nr * K;
    return p;
}

/* Rows [r, r + n) of w, n <= nv * LN; rows past n count as zeros. */
static void amx_fill(const fa_kernels *k, const fa_weight *w, int64_t r, int n, int nv, const amx_panel *p) {
    const int64_t K = w->cols, U = K / fa_qfmts[w->fmt].ugroup, nr = nv * LN;
    for (int v = 0; v < nv; v++) {
        for (int i = 0; i < LN; i++) {
            uint8_t *codes = p->row_codes + i * p->row_ld;
            float *scale = p->row_scale + i * p->ld, *min = p->row_min + i * p->ld;
            if (v * LN + i < n) {
                k->unpack[w->fmt](w, r + v * LN + i, codes, scale, min);
                continue;
            }
            memset(codes, 0, (size_t)K);
            memset(scale, 0, (size_t)U * 4);
            memset(min, 0, (size_t)U * 4);
        }
        transpose(p->row_codes, (size_t)p->row_ld, p->codes + v * LN * 4, (size_t)nr * 4, K / 4);
        transpose(p->row_scale, (size_t)p->ld * 4, p->scale + v * LN, (size_t)nr * 4, U);
        transpose(p->row_min, (size_t)p->ld * 4, p->min + v * LN, (size_t)nr * 4, U);
    }
}

/* AMX_MR input rows over a block of columns. */
typedef struct amx_qtile {
    const uint8_t *codes; /* panel at the block's first column */
    const float *scale, *min;
    int64_t n;             /* groups of ug columns in the block, an even number */
    const int8_t *q;       /* first input row at that column; rows ldq apart */
    const float *as, *sum; /* its scales, lds apart, and group sums, lds * 32 / ug apart */
    int64_t ldq, lds;
    float *acc; /* [AMX_MR][nr] */
    bool first, last, add;
    float *y; /* of the first input row */
    int64_t ldy;
    int skip, valid; /* input rows that are there already; weight rows that are there */
} amx_qtile;

/* c [AMX_MR][nv * LN] = sums of one group, made in tiles c0, c1 and a */
#define AMX_GROUP(c0, c1, a, nv, codes, q, ldq, c)                                                                     \
    do {                                                                                                               \
        AMX_ZERO(c0);                                                                                                  \
        AMX_LOAD(a, q, ldq);                                                                                           \
        AMX_LOAD(6, codes, (nv)*LN * 4);                                                                               \
        AMX_DOT_SU(c0, a, 6);                                                                                          \
        if ((nv) == 2) {                                                                                               \
            AMX_ZERO(c1);                                                                                              \
            AMX_LOAD(7, (codes) + LN * 4, (nv)*LN * 4);                                                                \
            AMX_DOT_SU(c1, a, 7);                                                                                      \
        }                                                                                                              \
        AMX_STORE(c0, c, (nv)*LN * 4);                                                                                 \
        if ((nv) == 2) AMX_STORE(c1, (c) + LN, (nv)*LN * 4);                                                           \
    } while (0)

/* f += sums of group u, scaled */
INLINE void amx_scale_group(const int nv, const int ug, const amx_qtile *t, int64_t u, const int32_t *c,
                            vf f[][AMX_NV]) {
    const int nr = nv * LN, per = 32 / ug;
    const float *as = t->as + u / per, *sum = t->sum + u;
    vf s[AMX_NV], mn[AMX_NV];
    for (int v = 0; v < nv; v++) {
        s[v] = vf_load(t->scale + u * nr + v * LN);
        mn[v] = vf_load(t->min + u * nr + v * LN);
    }
    V_UNROLL for (int i = 0; i < AMX_MR; i++) {
        const vf a = vf_set1(as[i * t->lds]), all = vf_set1(sum[i * t->lds * per]);
        for (int v = 0; v < nv; v++) {
            const vf whole = vf_cvt(vi_load(c + i * nr + v * LN));
            f[i][v] = vf_fma(mn[v], all, vf_fma(vf_mul(whole, a), s[v], f[i][v]));
        }
    }
}

INLINE void amx_qtile_run(const int nv, const int ug, const amx_qtile *t) {
    const int nr = nv * LN;
    _Alignas(64) int32_t c[2][AMX_MR * AMX_NV * LN];
    vf f[AMX_MR][AMX_NV];
    V_UNROLL for (int i = 0; i < AMX_MR; i++) {
        for (int v = 0; v < nv; v++) f[i][v] = t->first ? vf_zero() : vf_load(t->acc + i * nr + v * LN);
    }
    const uint8_t *codes = t->codes;
    const int8_t *q = t->q;
    AMX_GROUP(0, 1, 4, nv, codes, q, t->ldq, c[0]);
    for (int64_t u = 0; u < t->n; u += 2, codes += 2 * ug * nr, q += 2 * ug) {
        if (u + 1 < t->n) AMX_GROUP(2, 3, 5, nv, codes + ug * nr, q + ug, t->ldq, c[1]);
        amx_scale_group(nv, ug, t, u, c[0], f);
        if (u + 1 == t->n) break;
        if (u + 2 < t->n) AMX_GROUP(0, 1, 4, nv, codes + 2 * ug * nr, q + 2 * ug, t->ldq, c[0]);
        amx_scale_group(nv, ug, t, u + 1, c[1], f);
    }
    V_UNROLL for (int i = 0; i < AMX_MR; i++) {
        for (int v = 0; v < nv; v++) {
            float *out = t->y + i * t->ldy + v * LN;
            const int n = t->valid - v * LN < LN ? t->valid - v * LN : LN;
            if (!t->last)
                vf_store(t->acc + i * nr + v * LN, f[i][v]);
            else if (i >= t->skip)
                vf_storen(out, t->add ? vf_add(vf_loadn(out, n), f[i][v]) : f[i][v], n);
        }
    }
}

/* Each shape as a function, so that it gets its own registers. */
static NOINLINE void amx_qtile_1_32(const amx_qtile *t) { amx_qtile_run(1, 32, t); }
static NOINLINE void amx_qtile_2_32(const amx_qtile *t) { amx_qtile_run(2, 32, t); }
static NOINLINE void amx_qtile_1_16(const amx_qtile *t) { amx_qtile_run(1, 16, t); }
static NOINLINE void amx_qtile_2_16(const amx_qtile *t) { amx_qtile_run(2, 16, t); }

/* Input rows [m0, m1), at most AMX_MB of them, over the whole panel. */
static void amx_panel_run(const amx_panel *p, int ug, int nv, int n, const fa_act *x, int64_t m0, int64_t m1, float *y,
                          int64_t ldy, bool add) {
    const int64_t K = x->K, G = K / 32, nr = nv * LN;
    const int per = 32 / ug;
    for (int64_t k = 0; k < K; k += AMX_KB)
        for (int64_t m = m0; m < m1; m += AMX_MR) {
            const int64_t from = amx_min(m, x->M - AMX_MR);
            const amx_qtile t = {.codes = p->codes + k * nr,
                                 .scale = p->scale + k / ug * nr,
                                 .min = p->min + k / ug * nr,
                                 .n = amx_min(K - k, AMX_KB) / ug,
                                 .q = x->q + from * K + k,
                                 .as = x->scale + from * G + k / 32,
                                 .sum = (ug == 32 ? x->sum32 : x->sum16) + from * G * per + k / ug,
                                 .ldq = K,
                                 .lds = G,
                                 .acc = p->acc + (m - m0) * nr,
                                 .first = k == 0,
                                 .last = k + AMX_KB >= K,
                                 .add = add,
                                 .y = y + from * ldy,
                                 .ldy = ldy,
                                 .skip = (int)(m - from),
                                 .valid = n};
            if (ug == 32)
                (nv == 2 ? amx_qtile_2_32 : amx_qtile_1_32)(&t);
            else
                (nv == 2 ? amx_qtile_2_16 : amx_qtile_1_16)(&t);
        }
}

static void amx_linear_q8(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x, float *y,
                          int64_t ldy, bool add, void *scratch) {
    if (x->M < AMX_FEW || x->turned) {
        AMX_FEW_Q8(k, w, r0, r1, x, y, ldy, add, scratch);
        return;
    }
    const int ug = fa_qfmts[w->fmt].ugroup;
    const amx_config shape = amx_shape(AMX_MR, ug, ug / 4);
    const amx_panel p = amx_panel_at(scratch, w->cols);
    AMX_CONFIG(&shape);
    for (int64_t r = r0; r < r1; r += AMX_NV * LN) {
        const int n = (int)amx_min(r1 - r, AMX_NV * LN), nv = (n + LN - 1) / LN;
        amx_fill(k, w, r, n, nv, &p);
        for (int64_t m = 0; m < x->M; m += AMX_MB)
            amx_panel_run(&p, ug, nv, n, x, m, amx_min(m + AMX_MB, x->M), y + r, ldy, add);
    }
    AMX_RELEASE();
}

/* ---- bf16 ---- */

/* Within the f32 panel of the levels below, [K][3 * LN] and [128][3 * LN] floats and more. */
typedef struct amx_pairs {
    float *acc;     /* [AMX_BF16_MB][nr] sums between blocks of columns */
    uint16_t *tail; /* [2 * AMX_BF16_MR][AMX_BF16_KS]: the last columns of input rows, with zeros after them */
    uint32_t *w;    /* [pairs][nr]; pairs of whole tiles: zeros after the last column */
} amx_pairs;

static amx_pairs amx_pairs_at(void *scratch) {
    amx_pairs p = {.acc = (float *)scratch};
    p.tail = (uint16_t *)(p.acc + AMX_BF16_MB * AMX_NV * LN);
    p.w = (uint32_t *)(void *)(p.tail + 2 * AMX_BF16_MR * AMX_BF16_KS);
    return p;
}

/* Up to two tiles of input rows over a block of columns. */
typedef struct amx_btile {
    const uint32_t *w; /* panel at the block's first column */
    const uint16_t *x[2];
    int64_t ldx, steps; /* whole tiles of columns */
    const uint16_t *tail;
    bool more; /* one tile of columns is in tail */
    bool first;
    float *acc; /* [2 * AMX_BF16_MR][nr] */
} amx_btile;

#define AMX_COLUMNS(mt, nv, w, x0, x1, stride)                                                                         \
    do {                                                                                                               \
        AMX_LOAD(4, x0, stride);                                                                                       \
        AMX_LOAD(6, w, (nv)*LN * 4);                                                                                   \
        AMX_DOT_BF16(0, 4, 6);                                                                                         \
        if ((nv) == 2) {                                                                                               \
            AMX_LOAD(7, (w) + LN, (nv)*LN * 4);                                                                        \
            AMX_DOT_BF16(1, 4, 7);                                                                                     \
        }                                                                                                              \
        if ((mt) == 2) {                                                                                               \
            AMX_LOAD(5, x1, stride);                                                                                   \
            AMX_DOT_BF16(2, 5, 6);                                                                                     \
            if ((nv) == 2) AMX_DOT_BF16(3, 5, 7);                                                                      \
        }                                                                                                              \
    } while (0)

INLINE void amx_btile_run(const int mt, const int nv, const amx_btile *t) {
    const int nr = nv * LN;
    float *second = t->acc + AMX_BF16_MR * nr;
    if (t->first) {
        AMX_ZERO(0);
        AMX_ZERO(1);
        AMX_ZERO(2);
        AMX_ZERO(3);
    } else {
        AMX_LOAD(0, t->acc, nr * 4);
        if (nv == 2) AMX_LOAD(1, t->acc + LN, nr * 4);
        if (mt == 2) AMX_LOAD(2, second, nr * 4);
        if (mt == 2 && nv == 2) AMX_LOAD(3, second + LN, nr * 4);
    }
    const uint32_t *w = t->w;
    for (int64_t s = 0; s < t->steps; s++, w += AMX_BF16_KS / 2 * nr)
        AMX_COLUMNS(mt, nv, w, t->x[0] + s * AMX_BF16_KS, t->x[1] + s * AMX_BF16_KS, t->ldx * 2);
    if (t->more) AMX_COLUMNS(mt, nv, w, t->tail, t->tail + AMX_BF16_MR * AMX_BF16_KS, AMX_BF16_KS * 2);
    AMX_STORE(0, t->acc, nr * 4);
    if (nv == 2) AMX_STORE(1, t->acc + LN, nr * 4);
    if (mt == 2) AMX_STORE(2, second, nr * 4);
    if (mt == 2 && nv == 2) AMX_STORE(3, second + LN, nr * 4);
}

static NOINLINE void amx_btile_1_1(const amx_btile *t) { amx_btile_run(1, 1, t); }
static NOINLINE void amx_btile_1_2(const amx_btile *t) { amx_btile_run(1, 2, t); }
static NOINLINE void amx_btile_2_1(const amx_btile *t) { amx_btile_run(2, 1, t); }
static NOINLINE void amx_btile_2_2(const amx_btile *t) { amx_btile_run(2, 2, t); }

/* Columns [k, K) of `rows` input rows, fewer than AMX_BF16_KS, to a tile of their own. */
static void amx_tail(const uint16_t *x, int64_t ldx, int rows, int64_t left, uint16_t *out) {
    for (int i = 0; i < rows; i++, out += AMX_BF16_KS) {
        memcpy(out, x + i * ldx, (size_t)left * 2);
        memset(out + left, 0, (size_t)(AMX_BF16_KS - left) * 2);
    }
}

/* Sums of one tile's input rows [skip, rows) to y, which is at the tile's first row */
static void amx_put(const float *acc, int nv, int skip, int rows, int n, bool add, float *y, int64_t ldy) {
    for (int i = skip; i < rows; i++)
        for (int v = 0; v < nv; v++) {
            const int here = n - v * LN < LN ? n - v * LN : LN;
            float *out = y + i * ldy + v * LN;
            const vf f = vf_load(acc + (i * nv + v) * LN);
            vf_storen(out, add ? vf_add(vf_loadn(out, here), f) : f, here);
        }
}

/* The input of a pass: M rows in all, tiles of `rows` of them. */
typedef struct amx_input {
    const uint16_t *x;
    int64_t ldx, K, M;
    int rows;
} amx_input;

/* Input rows [m, m1) of one pair of tiles, columns [k, k + AMX_KB), sums at acc; y: of input row 0 */
static void amx_pair_run(const amx_pairs *p, const amx_input *in, int64_t m, int64_t m1, int64_t k, int nv, int n,
                         float *acc, float *y, int64_t ldy, bool add) {
    const int64_t nr = nv * LN, cols = amx_min(in->K - k, AMX_KB), whole = cols / AMX_BF16_KS;
    const int mt = m1 - m > in->rows ? 2 : 1;
    amx_btile t = {.w = p->w + k / 2 * nr,
                   .ldx = in->ldx,
                   .steps = whole,
                   .tail = p->tail,
                   .more = cols % AMX_BF16_KS != 0,
                   .first = k == 0,
                   .acc = acc};
    int64_t from[2];
    for (int a = 0; a < 2; a++) {
        from[a] = amx_min(m + a * in->rows, in->M - in->rows);
        t.x[a] = in->x + from[a] * in->ldx + k;
        if (t.more && a < mt)
            amx_tail(t.x[a] + whole * AMX_BF16_KS, in->ldx, in->rows, cols % AMX_BF16_KS,
                     p->tail + a * AMX_BF16_MR * AMX_BF16_KS);
    }
    if (nv == 2)
        (mt == 2 ? amx_btile_2_2 : amx_btile_1_2)(&t);
    else
        (mt == 2 ? amx_btile_2_1 : amx_btile_1_1)(&t);
    if (k + AMX_KB < in->K) return;
    for (int a = 0; a < mt; a++)
        amx_put(acc + a * AMX_BF16_MR * nr, nv, (int)(m + a * in->rows - from[a]), in->rows, n, add, y + from[a] * ldy,
                ldy);
}

static void amx_linear_bf16(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const uint16_t *x,
                            int64_t ldx, int64_t M, float *y, int64_t ldy, bool add, void *scratch) {
    const amx_pairs p = amx_pairs_at(scratch);
    const amx_input in = {x, ldx, w->cols, M, (int)amx_min(M, AMX_BF16_MR)};
    const amx_config shape = amx_shape(in.rows, 64, 16);
    (void)k;
    AMX_CONFIG(&shape);
    for (int64_t r = r0; r < r1; r += AMX_NV * LN) {
        const int n = (int)amx_min(r1 - r, AMX_NV * LN), nv = (n + LN - 1) / LN;
        pairs_fill(w, r, n, nv, AMX_BF16_KS / 2, p.w);
        for (int64_t m0 = 0; m0 < M; m0 += AMX_BF16_MB)
            for (int64_t c = 0; c < w->cols; c += AMX_KB)
                for (int64_t m = m0; m < amx_min(m0 + AMX_BF16_MB, M); m += 2 * AMX_BF16_MR)
                    amx_pair_run(&p, &in, m, amx_min(m0 + AMX_BF16_MB, M), c, nv, n, p.acc + (m - m0) * nv * LN, y + r,
                                 ldy, add);
    }
    AMX_RELEASE();
}

#endif
