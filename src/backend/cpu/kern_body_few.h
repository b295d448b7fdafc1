/* Products of int8 activations with a few input rows, more than the memory alone can be made to wait for and fewer than
 * a prompt's: lanes are 16 weight rows, activations are broadcast, and each block of columns of 16 rows is turned
 * around once for all input rows.
 *
 * What bounds it is the number of vector instructions (two a cycle), so they are counted: 64 codes of 16 rows times 8
 * input rows are 128 byte products, 24 to take packed codes apart, 32 to turn them around, 40 for scales and mins, 9 to
 * turn those around. Input rows are laid out for it first ("turned"): TILE of them side by side, four columns of each
 * in turn, so that every operand is at a fixed distance.
 *
 * Included by kern_body_linear.h where ROW_KINDS are known. */
#ifndef FA_CPU_KERN_BODY_FEW_H
#define FA_CPU_KERN_BODY_FEW_H

enum {
    FEW_TILE = 8,    /* input rows of a register tile */
    FEW_ROWS = LN,   /* weight rows of a block */
    FEW_COLS = 1024, /* its columns: 16 KiB of codes, which stay in L1 */
    FEW_GROUPS = FEW_COLS / 32
};

/* Up to FEW_TILE input rows, MR of them: q [K / 4][MR][4], scale [K / 32][MR], sum [K / ug][MR] */
typedef struct few_input {
    const int8_t *q;
    const float *scale, *sum;
} few_input;

/* A block of weights */
typedef struct few_block {
    const uint8_t *from; /* as they are stored, rows row_bytes apart */
    size_t row_bytes;
    uint8_t *codes;     /* [FEW_COLS / 4][FEW_ROWS][4] */
    float *scale, *min; /* [FEW_GROUPS][FEW_ROWS] */
} few_block;

/* ---- 16 rows turned around ---- */

/* Rows row_bytes apart from p on, 16 of them; n < 64: only n bytes of each */
INLINE void few_load(const uint8_t *p, size_t row_bytes, int n, __m512i v[16]) {
    const size_t three = 3 * row_bytes;
    const __mmask64 have = n < 64 ? ((__mmask64)1 << n) - 1 : ~(__mmask64)0;
    for (int i = 0; i < 16; i += 4, p += 4 * row_bytes) {
        v[i] = n < 64 ? _mm512_maskz_loadu_epi8(have, p) : _mm512_loadu_si512(p);
        v[i + 1] = n < 64 ? _mm512_maskz_loadu_epi8(have, p + row_bytes) : _mm512_loadu_si512(p + row_bytes);
        v[i + 2] = n < 64 ? _mm512_maskz_loadu_epi8(have, p + 2 * row_bytes) : _mm512_loadu_si512(p + 2 * row_bytes);
        v[i + 3] = n < 64 ? _mm512_maskz_loadu_epi8(have, p + three) : _mm512_loadu_si512(p + three);
    }
}

/* n bytes of packed codes to n / 2 vectors: of eight columns the even ones, then the odd ones */
INLINE void few_packed(const uint8_t *p, size_t row_bytes, int n, uint8_t *out) {
    __m512i v[16];
    few_load(p, row_bytes, n, v);
    transpose16(v);
    for (int i = 0; i < n / 4; i++, out += 8 * FEW_ROWS) {
        _mm512_storeu_si512(out, low_nibbles(v[i]));
        _mm512_storeu_si512(out + 4 * FEW_ROWS, low_nibbles(_mm512_srli_epi16(v[i], 4)));
    }
}

/* 16 rows of 16 words, twice (the halves of each vector), to 16 words of one column each: v[c] has column c of both,
 * v[8 + c] column 8 + c. */
INLINE void transpose_words(__m512i v[16]) {
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13),
                  high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi16(v[i], v[i + 1]); /* columns 0 .. 3 of each lane */
        t[i + 1] = _mm512_unpackhi_epi16(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi32(t[i], t[i + 2]); /* columns 0, 1 */
        v[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi32(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi32(t[i + 1], t[i + 3]);
    }
    for (int h = 0; h < 16; h += 8)
        for (int c = 0; c < 4; c++) {
            t[h + 2 * c] = _mm512_unpacklo_epi64(v[h + c], v[h + 4 + c]);
            t[h + 2 * c + 1] = _mm512_unpackhi_epi64(v[h + c], v[h + 4 + c]);
        }
    for (int c = 0; c < 8; c++) {
        v[c] = _mm512_permutex2var_epi64(t[c], low, t[8 + c]);
        v[8 + c] = _mm512_permutex2var_epi64(t[c], high, t[8 + c]);
    }
}

INLINE vf few_widen(bool f16, __m256i h) {
    return f16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Columns [0, n) of 16 rows of 16-bit scales and mins at s and m, `times` vectors of each */
INLINE void few_half_scales(bool f16, const uint8_t *s, const uint8_t *m, size_t row_bytes, int n, int times,
                            float *scale, float *min) {
    const __mmask16 have = first_n(n);
    __m512i v[16];
    for (int i = 0; i < 16; i++, s += row_bytes, m += row_bytes)
        v[i] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi16(have, s)),
                                  _mm256_maskz_loadu_epi16(have, m), 1);
    transpose_words(v);
    for (int c = 0; c < n; c++) {
        const vf a = few_widen(f16, _mm512_castsi512_si256(v[c])),
                 b = few_widen(f16, _mm512_extracti64x4_epi64(v[c], 1));
        for (int t = 0; t < times; t++, scale += FEW_ROWS, min += FEW_ROWS) {
            vf_store(scale, a);
            vf_store(min, b);
        }
    }
}

INLINE void few_float_scales(const uint8_t *p, size_t row_bytes, int n, int times, float *out) {
    __m512i v[16];
    for (int i = 0; i < 16; i++, p += row_bytes) v[i] = _mm512_maskz_loadu_epi32(first_n(n), p);
    transpose16(v);
    for (int c = 0; c < n; c++)
        for (int t = 0; t < times; t++, out += FEW_ROWS) _mm512_storeu_si512(out, v[c]);
}

/* Canonical groups of 32 or 64 columns; stored ones of 128 are two of 64. */
INLINE int few_ugroup(const fa_weight *w) { return w->group == 32 ? 32 : 64; }

static NOINLINE void few_scales(const fa_weight *w, int64_t r, int64_t k0, int64_t k1, float *scale, float *min) {
    const int times = w->group == 128 ? 2 : 1, size = w->scale_dtype == FA_F32 ? 4 : 2;
    const int64_t g1 = k1 / w->group;
    for (int64_t g = k0 / w->group; g < g1; g += 16, scale += 16 * FEW_ROWS * times, min += 16 * FEW_ROWS * times) {
        const int n = g1 - g < 16 ? (int)(g1 - g) : 16;
        const size_t at = (size_t)r * w->scale_row_bytes + (size_t)(g * size);
        if (size == 4) {
            few_float_scales(w->scales + at, w->scale_row_bytes, n, times, scale);
            few_float_scales(w->biases + at, w->scale_row_bytes, n, times, min);
        } else if (w->scale_dtype == FA_F16)
            few_half_scales(true, w->scales + at, w->biases + at, w->scale_row_bytes, n, times, scale, min);
        else
            few_half_scales(false, w->scales + at, w->biases + at, w->scale_row_bytes, n, times, scale, min);
    }
}

/* ---- products ---- */

/* Where the lines lie that come next: bytes of codes and of each kind of scales per canonical group */
typedef struct few_ahead {
    const uint8_t *codes, *scale, *min;
    size_t scale_step;
} few_ahead;

INLINE void few_ask(const int ug, few_ahead *a) {
    for (int i = 0; i < FEW_ROWS * ug / 2; i += 64) __builtin_prefetch(a->codes + i, 0, 2);
    __builtin_prefetch(a->scale, 0, 2);
    __builtin_prefetch(a->min, 0, 2);
    a->codes += FEW_ROWS * ug / 2;
    a->scale += a->scale_step;
    a->min += a->scale_step;
}

/* f [MR] += one canonical group: its codes, its scales and mins */
INLINE void few_group(const int MR, const int ug, const uint8_t *codes, const float *scale, const float *mins,
                      few_input *x, vf *f) {
    const vi bits = _mm512_add_epi32(vi_load(scale), _mm512_set1_epi32(2));
    const vf s = vf_from_bits(_mm512_and_si512(bits, _mm512_set1_epi32(~3)));
    const vf low = vf_mul(s, vf_set1(-MAGIC)), min = vf_load(mins);
    for (int h = 0; h < ug / 32; h++) {
        vi c[FEW_TILE];
        for (int i = 0; i < MR; i++) c[i] = vf_bits(vf_set1(MAGIC));
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++, codes += CHUNK, x->q += 4 * MR) {
            const vi w = vi_load(codes);
            for (int i = 0; i < MR; i++) c[i] = vi_dp4(c[i], w, x->q + 4 * i);
        }
        for (int i = 0; i < MR; i++) f[i] = vf_fma(vf_fma(vf_from_bits(c[i]), s, low), vf_set1(x->scale[i]), f[i]);
        x->scale += MR;
    }
    for (int i = 0; i < MR; i++) f[i] = vf_fma(min, vf_set1(x->sum[i]), f[i]);
    x->sum += MR;
}

/* acc [MR][16] += cols columns of the block times MR input rows. The first tile of input rows leads: it takes the codes
 * apart, 128 columns at a time so that this and the products before it run side by side, and asks for what is next. */
INLINE void few_tile(const int MR, const int ug, const bool lead, const few_block b, int64_t cols, few_input x,
                     few_ahead ahead, float *acc) {
    uint8_t *codes = b.codes;
    const float *scale = b.scale, *min = b.min;
    const uint8_t *from = b.from;
    vf f[FEW_TILE];
    for (int i = 0; i < MR; i++) f[i] = vf_load(acc + LN * i);
    for (int64_t k = 0; k < cols;) {
        if (lead && cols - k >= 128)
            few_packed(from + k / 2, b.row_bytes, 64, codes);
        else if (lead)
            few_packed(from + k / 2, b.row_bytes, 32, codes);
        for (const int64_t end = cols - k >= 128 ? k + 128 : cols; k < end; k += ug) {
            if (lead) few_ask(ug, &ahead);
            few_group(MR, ug, codes, scale, min, &x, f);
            codes += ug * FEW_ROWS;
            scale += LN;
            min += LN;
        }
    }
    for (int i = 0; i < MR; i++) vf_store(acc + LN * i, f[i]);
}

#define FEW_TILE_OF(name, mr, lead)                                                                                    \
    static NOINLINE void few_##name##_##mr(int ug, const few_block *b, int64_t cols, const few_input *x,               \
                                           const few_ahead *ahead, float *acc) {                                       \
        if (ug == 64)                                                                                                  \
            few_tile(mr, 64, lead, *b, cols, *x, *ahead, acc);                                                         \
        else                                                                                                           \
            few_tile(mr, 32, lead, *b, cols, *x, *ahead, acc);                                                         \
    }
#define FEW_LEAD(mr) FEW_TILE_OF(lead, mr, true)
#define FEW_NEXT(mr) FEW_TILE_OF(next, mr, false)
#define FEW_LEADS(X) X(3) X(4) X(5) X(6) X(7) X(8)
#define FEW_NEXTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
FEW_LEADS(FEW_LEAD)
FEW_NEXTS(FEW_NEXT)
typedef void few_tile_fn(int ug, const few_block *b, int64_t cols, const few_input *x, const few_ahead *ahead,
                         float *acc);
#define FEW_LEAD_NAME(mr) [mr - 1] = few_lead_##mr,
#define FEW_NEXT_NAME(mr) [mr - 1] = few_next_##mr,
static few_tile_fn *const few_leads[FEW_TILE] = {FEW_LEADS(FEW_LEAD_NAME)}, *const few_nexts[FEW_TILE] = {
                                                                                FEW_NEXTS(FEW_NEXT_NAME)};

/* ---- the input: tiles of FEW_TILE rows, one after the other ---- */

static few_input few_input_at(uint8_t *mem, int64_t MR, int64_t K) {
    float *scale = (float *)(void *)(mem + MR * K);
    return (few_input){(int8_t *)mem, scale, scale + MR * (K / 32)};
}

/* Rows [m0, m1) of one tile: dwords 4 columns wide go to every MR-th place. */
static void few_turn_codes(const fa_act *a, int64_t m0, int64_t m1, int64_t MR, uint8_t *out) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    const int n = (int)(m1 - m0);
    const __mmask16 rows = first_n(n);
    for (int64_t k = 0; k < a->K; k += 64) {
        __m512i v[16];
        for (int i = 0; i < 16; i++)
            v[i] = i < n ? _mm512_shuffle_epi8(_mm512_loadu_si512(a->q + (m0 + i) * a->K + k), order)
                         : _mm512_setzero_si512();
        transpose16(v);
        for (int i = 0; i < 16; i++) _mm512_mask_storeu_epi32(out + MR * (k + 4 * i), rows, v[i]);
    }
}

static void turn_act(const fa_act *a, int64_t m0, int64_t m1) {
    const int64_t K = a->K, G = K / 32, first = m0 / FEW_TILE * FEW_TILE, at = m0 - first, per = a->turn / 32,
                  MR = a->M - first < FEW_TILE ? a->M - first : FEW_TILE;
    uint8_t *mem = a->turned + fa_turned_bytes(first, K);
    float *scale = (float *)(void *)(mem + MR * K) + at, *sum = scale + MR * G;
    few_turn_codes(a, m0, m1, MR, mem + 4 * at);
    for (int64_t i = 0; i < m1 - m0; i++) {
        const float *s = a->scale + (m0 + i) * G, *p = a->sum32 + (m0 + i) * G;
        for (int64_t g = 0; g < G; g++) scale[g * MR + i] = s[g];
        for (int64_t g = 0; g < G; g += per) sum[g / per * MR + i] = per == 2 ? p[g] + p[g + 1] : p[g];
    }
}

/* ---- a product ---- */

typedef struct few_scratch {
    few_block b;
    float *acc;     /* [M][16] */
    uint8_t *input; /* tiles, one after the other */
} few_scratch;

static size_t few_bytes(int64_t K, int64_t M) {
    return (size_t)(FEW_ROWS * (FEW_COLS + 8 * FEW_GROUPS + 4 * M)) + fa_turned_bytes(M, round_up(K, 64));
}

static few_scratch few_scratch_at(void *scratch, int64_t M) {
    few_scratch s;
    s.b.codes = (uint8_t *)scratch;
    s.b.scale = (float *)(void *)(s.b.codes + FEW_ROWS * FEW_COLS);
    s.b.min = s.b.scale + FEW_GROUPS * FEW_ROWS;
    s.acc = s.b.min + FEW_GROUPS * FEW_ROWS;
    s.input = (uint8_t *)(s.acc + FEW_ROWS * M);
    return s;
}

/* acc [M][16] to columns [skip, 16) of y */
static void few_put(const float *acc, int64_t M, int skip, float *y, int64_t ldy, bool add) {
    const __mmask16 lanes = (__mmask16)(0xFFFFu << skip);
    for (int64_t m = 0; m < M; m++, y += ldy, acc += LN) {
        vf out = vf_load(acc);
        if (add) out = vf_add(out, _mm512_maskz_loadu_ps(lanes, y));
        _mm512_mask_storeu_ps(y, lanes, out);
    }
}

/* Weight rows [r, r + FEW_ROWS) times all input rows into s->acc */
static void few_rows(const fa_weight *w, int64_t r, const fa_act *x, const few_scratch *s) {
    const int64_t K = w->cols, M = x->M;
    const int ug = few_ugroup(w);
    memset(s->acc, 0, (size_t)(M * FEW_ROWS) * 4);
    for (int64_t k = 0; k < K; k += FEW_COLS) {
        const int64_t k1 = k + FEW_COLS < K ? k + FEW_COLS : K;
        few_block b = s->b;
        b.from = w->codes + (size_t)r * w->row_bytes + (size_t)k / 2;
        b.row_bytes = w->row_bytes;
        few_scales(w, r, k, k1, b.scale, b.min);
        const uint8_t *mem = s->input;
        few_ahead ahead = {w->codes + (size_t)(r + FEW_ROWS) * w->row_bytes + (size_t)(k * FEW_ROWS / 2),
                           w->scales + (size_t)(r + FEW_ROWS) * w->scale_row_bytes,
                           w->biases + (size_t)(r + FEW_ROWS) * w->scale_row_bytes,
                           FEW_ROWS * w->scale_row_bytes * (size_t)ug / (size_t)K};
        ahead.scale += ahead.scale_step * (size_t)(k / ug);
        ahead.min += ahead.scale_step * (size_t)(k / ug);
        for (int64_t m = 0; m < M; m += FEW_TILE) {
            const int64_t mr = M - m < FEW_TILE ? M - m : FEW_TILE;
            few_input in = few_input_at((uint8_t *)(uintptr_t)mem, mr, K);
            in.q += mr * k;
            in.scale += mr * (k / 32);
            in.sum += mr * (k / ug);
            few_tile_fn *const tile = m ? few_nexts[mr - 1] : few_leads[mr - 1];
            tile(ug, &b, k1 - k, &in, &ahead, s->acc + FEW_ROWS * m);
            mem += fa_turned_bytes(mr, K);
        }
    }
}

static int turn_of(const fa_weight *w, int64_t M) {
    return row_kind(w) == ROW_AFFINE4 && M >= FEW_FROM && M <= FEW_M ? few_ugroup(w) : 0;
}

/* false: not a product for this */
static bool few_linear(const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x, float *y, int64_t ldy, bool add,
                       void *scratch) {
    const int turn = turn_of(w, x->M);
    if (!turn || r1 < FEW_ROWS) return false;
    few_scratch s = few_scratch_at(scratch, x->M);
    if (x->turn == turn) {
        s.input = x->turned;
    } else {
        fa_act own = *x;
        own.turned = s.input;
        own.turn = turn;
        for (int64_t m = 0; m < x->M; m += FEW_TILE) turn_act(&own, m, m + FEW_TILE < x->M ? m + FEW_TILE : x->M);
    }
    for (int64_t r = r0; r < r1; r += FEW_ROWS) { /* the last rows come with some that are there already */
        const int skip = r1 - r < FEW_ROWS ? (int)(FEW_ROWS - (r1 - r)) : 0;
        few_rows(w, r - skip, x, &s);
        few_put(s.acc, x->M, skip, y + r - skip, ldy, add);
    }
    return true;
}

INLINE void few_init(fa_kernels *k) {
    k->turn_of = turn_of;
    k->turn_act = turn_act;
}

#endif
