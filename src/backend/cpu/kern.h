/* The CPU kernel table: hot inner loops chosen once at run time for the instruction sets that the machine has (and
 * FFAI_CPU allows).
 *
 * fa_kernels_init fills every slot with the plain-C definition (kern_c.c), then each ISA file overlays what it has, in
 * rising order. A slot that an ISA leaves alone keeps the narrower version. Kernels are pure: no allocation, no
 * threads, no globals; scratch comes from the caller, 64-byte aligned. Weight data and inputs may start at any byte
 * unless a comment says otherwise. */
#ifndef FA_CPU_KERN_H
#define FA_CPU_KERN_H

#include "tensor/kvq.h"
#include "tensor/qfmt.h"

/* Activations of a matmul in int8, symmetric, per group of 32 along the row: x[k] ~ q[k] * scale[k / 32], |q| <= 127,
 * scale = amax / 127 (0 for an all-zero group, q = 0). sum32[g] = scale * sum of q over the group, sum16 the same over
 * halves. K is a multiple of 32. */
typedef struct fa_act {
    int8_t *q;            /* [M, K] */
    float *scale;         /* [M, K / 32] */
    float *sum32, *sum16; /* [M, K / 32], [M, K / 16] */
    int64_t M, K;
    uint8_t *turned; /* the same once more as turn_act lays it out; NULL: not made */
    int turn;        /* in which way: see turn_of */
} fa_act;

/* Bytes of a turned input. */
static inline size_t fa_turned_bytes(int64_t M, int64_t K) { return (size_t)(M * (K + K / 32 * 8)); }

/* Arguments of attention over one sequence's pages for one kv head. Softmax runs in f32. */
typedef struct fa_attend_args {
    const float *q; /* query row i, head j of the group at q + i * q_stride + j * head_dim; not scaled yet */
    int64_t q_stride;
    float *out; /* same layout with out_stride; unused when partial is set */
    int64_t out_stride;
    int n_q;                   /* query rows */
    int n_group;               /* query heads that share this kv head */
    int head_dim;              /* K and V head dim (32..512, any value) */
    const void *const *k_page; /* page p holds keys of positions [64 p, 64 p + 64): [64, head_dim] of kv_dtype */
    const void *const *v_page;
    fa_dtype kv_dtype;            /* FA_F32, FA_F16, FA_BF16, or FA_I8: tensor/kvq.h */
    const int32_t *kv_lo, *kv_hi; /* per query row: attends to positions kv_lo[i] <= p < kv_hi[i] (never empty) */
    int32_t pos0,
        pos1; /* only positions in [pos0, pos1) are visited by this call (split KV); pos0 is a multiple of 64 */
    float scale, softcap; /* score = scale * q.k; softcap > 0: softcap * tanh(score / softcap) */
    const float *sink; /* [n_group] an extra logit without value per head, or NULL (added by the caller of a split: see
                          partial) */
    float *partial; /* NULL: write normalised out. Else write per (row, group head): [m, l, o[head_dim]] unnormalised, m
                       = -inf and l = 0 when nothing was visited; sink is then ignored */
} fa_attend_args;

/* Rows of n channels of a causal convolution (fa_conv). */
typedef struct fa_conv_args {
    const float *x; /* row i at x + i * ldx */
    int64_t ldx;
    const float *tail; /* inputs before row 0, [kernel - 1] rows ld_tail apart, oldest first; NULL: zeros */
    int64_t ld_tail;
    const float *w;    /* [kernel, n] */
    const float *bias; /* [n] or NULL */
    int64_t n, rows;
    int kernel;
    bool silu;
    float *y; /* row i at y + i * ldy */
    int64_t ldy;
} fa_conv_args;

/* Rows of n channels of Mamba 1's scan (fa_ssm1). delta: softplus was taken. */
typedef struct fa_ssm1_args {
    const float *x, *delta, *b, *c; /* row i of each at + i * ld */
    int64_t ldx, ld_delta, ldb, ldc;
    const float *a; /* [n_state] rows lda apart, n of each */
    int64_t lda;
    const float *d; /* [n] */
    float *h;       /* [n_state] rows ldh apart, n of each */
    int64_t ldh, n, n_state, rows;
    float *y;
    int64_t ldy;
} fa_ssm1_args;

enum { FA_MASSES = 8 }; /* thresholds that fa_kernels.masses takes at a time */

typedef struct fa_kernels fa_kernels;
struct fa_kernels {
    const char *isa; /* "c", "avx2", "avx512", "avx512vnni", "amx", "neon", ...: the highest that was applied */

    /* Canonical unpack of one whole row (tensor/qfmt.h), per format. NULL for float formats. */
    void (*unpack[FA_FMT_COUNT])(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min);

    /* Quantizes M rows of x (row stride ldx) into a (a->M, a->K set, planes allocated by the caller), rows [m0, m1)
     * only. */
    void (*quant_act)(const float *x, int64_t ldx, int64_t m0, int64_t m1, fa_act *a);

    /* y[m * ldy + r] (= or, with add, +=) sum_k x[m, k] * w[r, k] for r in [r0, r1) and all m. Quantized weights only,
     * int8 activations, i32 group sums, f32 accumulation. */
    void (*linear_q8)(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x, float *y,
                      int64_t ldy, bool add, void *scratch);
    /* The way, not 0, in which products of M input rows with w want their input turned: they then need not do it
     * themselves at every call. Both NULL where no product does. */
    int (*turn_of)(const fa_weight *w, int64_t M);
    /* Rows [m0, m1) of a, which are quantized, to a->turned in the way a->turn; m0 to m1 - 1 lie in the same eight. */
    void (*turn_act)(const fa_act *a, int64_t m0, int64_t m1);
    /* linear_q8 in f32, for every format: weights are widened (never rounded) and sums are f32. */
    void (*linear_f32)(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                       int64_t M, float *y, int64_t ldy, bool add, void *scratch);
    /* bf16 weights times bf16 activations (what `convert` makes of them), f32 sums. NULL where the machine has no such
     * product. M > 4 only: fewer rows wait for memory in any form. */
    void (*linear_bf16)(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const uint16_t *x, int64_t ldx,
                        int64_t M, float *y, int64_t ldy, bool add, void *scratch);
    /* Bytes of scratch that any linear kernel needs for rows of `cols` values and M input rows. */
    size_t (*linear_scratch)(int64_t cols, int64_t M);
    int row_tile; /* row ranges given to linear_* should be multiples of this (except at the end of the matrix) */

    /* out = x * rsqrt(mean(x^2) + eps) * (w + offset); w NULL = no weight. out may be x. */
    void (*rms_norm)(const float *x, const float *w, float offset, float eps, int64_t n, float *out);
    /* rotates half-split pairs (i, i + n/2) or, interleaved, (2i, 2i + 1) of x[n] by cos[n/2], sin[n/2], in place */
    void (*rope)(float *x, const float *cos, const float *sin, int64_t n, bool interleaved);
    void (*silu_mul)(const float *gate, const float *up, int64_t n, float *out); /* out = gate * sigmoid(gate) * up */
    void (*gelu_tanh_mul)(const float *gate, const float *up, int64_t n, float *out); /* out = gelu_tanh(gate) * up */
    void (*gelu_erf_mul)(const float *gate, const float *up, int64_t n, float *out);
    void (*relu_mul)(const float *gate, const float *up, int64_t n, float *out);
    void (*add)(float *y, const float *x, int64_t n);                  /* y += x */
    void (*convert)(const float *x, fa_dtype t, int64_t n, void *out); /* to F32, F16 or BF16, nearest even */

    /* For samplers, which read rows of a whole vocabulary; NaN and -inf count as absent, except in masses. */
    /* Sum of e^((x - base) * scale), base >= every x; the terms go to out [n] unless it is NULL (0 for absent ones). */
    double (*exp_sum)(const float *x, int64_t n, float base, float scale, float *out);
    /* The same sum; *dot: the sum of (x - base) times its term, *live: how many are present. */
    double (*exp_mean)(const float *x, int64_t n, float base, float scale, double *dot, int64_t *live);
    /* Sums of d and of d^2, d = x - base, and how many there are; *s1 is undefined where *s2 is infinite. */
    int64_t (*moments)(const float *x, int64_t n, float base, double *s1, double *s2);
    /* The least and the greatest; inf and -inf when all are absent. */
    void (*range)(const float *x, int64_t n, float *min, float *max);
    /* out[b] = the greatest of x[64 b, 64 b + 64), -inf when all are absent. [(n + 63) / 64] */
    void (*block_max)(const float *x, int64_t n, float *out);
    /* sum[j] = the weights w (NULL: 1 each) of all key >= t[j]. No NaN. */
    void (*masses)(const float *key, const float *w, int64_t n, const float t[FA_MASSES], double sum[FA_MASSES]);
    /* Lists all x with lo <= x / div <= hi: the quotient to out, first + its place to id; returns how many. Both have
     * room for n, behind the list they are overwritten; out may be x. */
    int64_t (*between)(const float *x, int64_t n, float div, float lo, float hi, int32_t first, float *out,
                       int32_t *id);

    /* Recurrent layers. */
    void (*conv)(const fa_conv_args *a);
    void (*ssm1)(const fa_ssm1_args *a);
    void (*softplus)(const float *x, int64_t n, float *out); /* log(1 + e^x) */
    /* y[i, j] = (or, with add, +=) sum over k of a[i * a_row + k * a_col] b[k * ldb + j]: [m, n] of K terms */
    void (*product)(const float *a, int64_t a_row, int64_t a_col, int64_t m, int64_t K, const float *b, int64_t ldb,
                    int64_t n, float *y, int64_t ldy, bool add);
    /* y[i, j] = sum over k of a[i * lda + k] b[j * ldb + k] for j <= i (the rest is not written): [m, m] of K terms */
    void (*gram)(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m, int64_t K, float *y, int64_t ldy);
    /* One row of fa_ssd's scan of one head: h [n_state, n] = decay h + (delta b[s]) x; y [n] = sum over s of c[s] h[s]
     * + d x */
    void (*ssd_row)(float *h, int64_t n_state, int64_t n, float decay, float delta, const float *b, const float *c,
                    const float *x, float d, float *y);
    /* One row of fa_delta's scan of one head, q and k normalised: s [k_dim, n]; u [n] is scratch */
    void (*delta_row)(float *s, int64_t k_dim, int64_t n, float decay, float beta, const float *q, const float *k,
                      const float *v, float *u, float *y);

    void (*attend)(const fa_attend_args *a, void *scratch);
    size_t (*attend_scratch)(int n_q, int n_group, int head_dim);
    int attend_q_tile; /* callers cut long prompts into tiles of at most this many query rows */
    /* Merges the partials of n_split calls over the same rows = n_q * n_group (row r is query row r / n_group, group
     * head r % n_group), adds the sink if any, normalises: out + (r / n_group) * out_stride + (r % n_group) * head_dim.
     * A row that nobody visited becomes zeros. */
    void (*attend_combine)(const float *const *partial, int n_split, int64_t rows, int n_group, int head_dim,
                           const float *sink, float *out, int64_t out_stride);
};

/* limit: "c", "avx2", "avx512", ... as in FFAI_CPU, or NULL for all that the machine has and that pays (avx512bf16 must
 * be named). Unknown names fail with the list of names. */
int fa_kernels_init(fa_kernels *k, const char *limit, fa_error *err);
/* Names of the levels that this build knows, in rising order; NULL after the last. */
const char *fa_kernels_level(size_t i);

/* Overlays: three groups of slots (unpack; linear = quant_act, linear_*; vec = everything else), each ISA of a group in
 * its own file kern_<group>_<isa>.c built with that ISA's flags and called only when the machine has it. The C group
 * files fill every slot of the group. */
#define FA_KERN_ISAS(X, group)                                                                                         \
    X(group, c)                                                                                                        \
    X(group, avx2)                                                                                                     \
    X(group, avx512)                                                                                                   \
    X(group, avx512vnni)                                                                                               \
    X(group, neon)
#define FA_X(group, isa) void fa_kern_##group##_init_##isa(fa_kernels *k);
FA_KERN_ISAS(FA_X, unpack)
FA_KERN_ISAS(FA_X, linear)
FA_KERN_ISAS(FA_X, vec)
FA_X(linear, avx512bf16) /* these have only this group */
FA_X(linear, avxvnni)
FA_X(linear, amx)
FA_X(linear, amxint8)
FA_X(linear, neondot)
FA_X(linear, neoni8mm)
FA_X(linear, neonbf16)
#undef FA_X
/* What avx512vnni puts into linear_q8: amx leaves few input rows to it. */
void fa_kern_linear_q8_avx512vnni(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x,
                                  float *y, int64_t ldy, bool add, void *scratch);

#endif
