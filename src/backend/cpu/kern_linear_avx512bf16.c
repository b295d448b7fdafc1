/* Products of bf16 weights with bf16 activations on machines with AVX512-BF16: vdpbf16ps adds two products per lane to
 * an f32 sum. It rounds to nearest even whatever the mode is and counts subnormal values as zero.
 *
 * For many input rows only: with few of them the speed of memory is the limit, and linear_f32 reads the same bytes. A
 * panel of up to NV * 16 weight rows is interleaved in scratch as pairs of columns, [pairs][rows][2], so that lanes are
 * weight rows and pairs of activations are broadcast; blocks of PB pairs stay in L1 while MB input rows pass. */
#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"

#include "backend/cpu/kern_x86_avx512_pairs.h"

enum {
    NV = 3,   /* vectors of weight rows in a register tile */
    MR = 8,   /* input rows in a register tile */
    PB = 128, /* pairs of columns in a panel block: 24 KiB */
    MB = 128  /* input rows that pass over one panel before the next block */
};

/* Within the f32 panel of the levels below, [K][NV * LN] and [MB][NV * LN] floats, that linear_scratch counts. */
typedef struct panel {
    float *acc;  /* [MB][nr] sums between blocks */
    uint32_t *w; /* [pairs][nr] */
} panel;

static panel panel_at(void *scratch) {
    panel p = {.acc = (float *)scratch};
    p.w = (uint32_t *)(void *)(p.acc + (size_t)MB * NV * LN);
    return p;
}

/* One register tile over a block of columns. */
typedef struct tile {
    const uint32_t *w;
    const uint16_t *x; /* first input row at the block's first column; rows ldx apart */
    int64_t pairs, ldx;
    bool odd; /* the last pair has only its first column */
    float *acc;
    bool first, last, add;
    float *y;
    int64_t ldy;
    int n; /* weight rows that are there */
} tile;

/* f[i][v] += one pair of columns; half: x has only the first of them */
INLINE void tile_pair(const int mr, const int nv, const bool half, const uint32_t *w, const uint16_t *x, int64_t ldx,
                      vf f[][NV]) {
    __m512i b[NV];
    for (int v = 0; v < nv; v++) b[v] = _mm512_loadu_si512(w + v * LN);
    for (int i = 0; i < mr; i++) {
        uint32_t a = 0;
        memcpy(&a, x + i * ldx, half ? 2 : 4);
        const __m512i av = _mm512_set1_epi32((int)a);
        for (int v = 0; v < nv; v++) f[i][v] = _mm512_dpbf16_ps(f[i][v], (__m512bh)b[v], (__m512bh)av);
    }
}

INLINE void tile_run(const int mr, const int nv, const tile *t) {
    const int nr = nv * LN;
    const int64_t ldx = t->ldx, whole = t->pairs - t->odd;
    vf f[MR][NV];
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < nv; v++) f[i][v] = t->first ? vf_zero() : vf_load(t->acc + i * nr + v * LN);
    const uint32_t *w = t->w;
    const uint16_t *x = t->x;
    for (int64_t p = 0; p < whole; p++, w += nr, x += 2) tile_pair(mr, nv, false, w, x, ldx, f);
    if (t->odd) tile_pair(mr, nv, true, w, x, ldx, f);
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < nv; v++) {
            const int n = t->n - v * LN < LN ? t->n - v * LN : LN;
            float *out = t->y + i * t->ldy + v * LN;
            if (!t->last)
                vf_store(t->acc + i * nr + v * LN, f[i][v]);
            else
                vf_storen(out, t->add ? vf_add(vf_loadn(out, n), f[i][v]) : f[i][v], n);
        }
}

/* Every register tile as a function, so that each gets its own registers. */
#define TILE(mr, nv)                                                                                                   \
    static NOINLINE void tile_##mr##_##nv(const tile *t) { tile_run(mr, nv, t); }
FTILES(TILE)
#define TILE_NAME(mr, nv) [nv - 1][mr - 1] = tile_##mr##_##nv,
static void (*const tiles[NV][MR])(const tile *t) = {FTILES(TILE_NAME)};

/* M <= MB input rows over the whole panel. */
static void panel_run(const panel *p, int64_t K, int nv, int n, const uint16_t *x, int64_t ldx, int64_t M, float *y,
                      int64_t ldy, bool add) {
    const int64_t pairs = (K + 1) / 2, nr = nv * LN;
    for (int64_t c = 0; c < pairs; c += PB) {
        tile t = {.w = p->w + c * nr, .ldx = ldx, .first = c == 0, .last = c + PB >= pairs, .add = add, .ldy = ldy};
        t.pairs = t.last ? pairs - c : PB;
        t.odd = t.last && K % 2;
        t.n = n;
        for (int64_t m = 0; m < M;) {
            const int mr = M - m >= 8 ? 8 : M - m >= 4 ? 4 : M - m >= 2 ? 2 : 1;
            t.x = x + m * ldx + 2 * c;
            t.acc = p->acc + m * nr;
            t.y = y + m * ldy;
            tiles[nv - 1][mr - 1](&t);
            m += mr;
        }
    }
}

static void linear_bf16(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const uint16_t *x, int64_t ldx,
                        int64_t M, float *y, int64_t ldy, bool add, void *scratch) {
    (void)k;
    const panel p = panel_at(scratch);
    for (int64_t r = r0; r < r1; r += NV * LN) {
        const int n = r1 - r < NV * LN ? (int)(r1 - r) : NV * LN, nv = (n + LN - 1) / LN;
        pairs_fill(w, r, n, nv, 1, p.w);
        for (int64_t m = 0; m < M; m += MB)
            panel_run(&p, w->cols, nv, n, x + m * ldx, ldx, m + MB < M ? MB : M - m, y + m * ldy + r, ldy, add);
    }
}

void fa_kern_linear_init_avx512bf16(fa_kernels *k) { k->linear_bf16 = linear_bf16; }
