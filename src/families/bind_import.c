/* What other quantizers left in checkpoints, as matrices that kernels read. Codes are never changed, only moved; scales
 * and zeros become planes of our own, in f32 unless the stored type holds them exactly.
 *
 *   FP8      X.weight E4M3 [rows, cols] with X.weight_scale_inv (blocks, transformers "fp8") or X.weight_scale (per
 *            tensor, per row or blocks: compressed-tensors, fbgemm, modelopt). value = code * scale.
 *   int8     X.weight I8 with X.weight_scale (compressed-tensors "int-quantized"): affine, 8 bits.
 *   packed   X.weight_packed I32 [rows, cols * bits / 32], X.weight_scale [rows, groups], perhaps X.weight_zero_point
 *            I32 [rows * bits / 32, groups] and X.weight_g_idx [cols]: the group of each column, all -1: in order
 *            (compressed-tensors "pack-quantized"): codes are 2^(bits - 1) higher.
 *   GPTQ     X.qweight I32 [cols * bits / 32, rows], X.qzeros I32 [groups, rows * bits / 32] (one less than the zero,
 *            but in "gptq_v2"), X.scales [groups, rows], X.g_idx [cols]: the group of each column.
 *   AWQ      X.qweight I32 [cols, rows / 8], X.qzeros I32 [groups, rows / 8], X.scales [groups, rows]; nibble i of a
 *            word belongs to row 0 2 4 6 1 3 5 7 of 8. Layout "gemm".
 *            Layout "gemv": X.qweight I32 [rows, cols / 8], X.qzeros I32 [rows, W], X.scales F16 [rows, 8 W], of which
 *            the first cols / group_size count; all in plain order.
 *            Layout "gemv_fast": X.qweight I16 [rows / 4, cols], X.scales and X.scaled_zeros (-scale * zero) F16
 *            [8 W, rows]; see turn_fast.
 *
 * Where groups are not runs of columns (act-order), columns are put in the order of their groups, which the layer then
 * asks of its input (fa_linear.order). In experts, whose inputs are shared, and where groups are of several sizes or
 * none of ours, there is no affine form: such a matrix becomes floats, f16 where they hold every value and f32 where
 * not. Two codes of four bits that are floats: bind_fp4.c. */
#define _POSIX_C_SOURCE 200809L
#include "base/alloc.h"
#include "families/bind.h"

#include <string.h>
#include <strings.h>

/* ---- scales of blocks, rows or the whole ---- */

static int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

static bool float_type(int dtype) {
    return dtype == FA_F32 || dtype == FA_F16 || dtype == FA_BF16 || dtype == FA_F8_E8M0;
}

/* A grid of scales over each of n matrices: a scale for bh x bw values. */
typedef struct grid {
    const fa_ckpt_tensor *t;
    int64_t rows, cols, bh, bw; /* of the grid; of a block */
} grid;

static float grid_at(const grid *g, int64_t matrix, int64_t row, int64_t col) {
    const int64_t i = (matrix * g->rows + row / g->bh) * g->cols + col / g->bw;
    const fa_dtype t = g->t->dtype == FA_U8 ? FA_F8_E8M0 : (fa_dtype)g->t->dtype; /* bytes are exponents */
    float f;
    fa_to_f32(t, g->t->data + (size_t)i * fa_dtype_size(t), 1, &f);
    return f;
}

static bool wrong_scales(fa_binder *b, const fa_ckpt_tensor *t, int64_t rows, int64_t cols) {
    const int64_t first = t->n_dim ? t->dim[0] : 1, last = t->n_dim > 1 ? t->dim[t->n_dim - 1] : 1;
    fa_bind_wrong(b, t, "scales %s [%lld%s%lld] do not fit a matrix of [%lld, %lld]", t->type_name, (long long)first,
                  t->n_dim > 2 ? ", .., " : ", ", (long long)last, (long long)rows, (long long)cols);
    return false;
}

/* Which of the arrangements t has, for n matrices (0: one) of [rows, cols]. Blocks are the config's; where these do not
 * fit, the equal ones that the grid means, as in transformers. */
static bool grid_of(fa_binder *b, grid *g, const fa_ckpt_tensor *t, int64_t n, int64_t rows, int64_t cols) {
    const fa_jnode *block = fa_jget(b->quant, "weight_block_size");
    const int64_t bh = fa_jint(fa_jfirst(block), 128), bw = fa_jint(fa_jnext(fa_jfirst(block)), 128);
    int64_t d[2] = {1, 1};
    const int lead = n && t->n_dim && t->dim[0] == n ? 1 : 0;
    if ((!float_type(t->dtype) && t->dtype != FA_U8) || t->n_dim > 2 + lead) return wrong_scales(b, t, rows, cols);
    for (int i = lead; i < t->n_dim; i++) d[i - lead] = t->dim[i];
    *g = (grid){t, d[0], d[1], rows, cols};
    if (n && !lead) return wrong_scales(b, t, rows, cols);
    if (d[0] == 1 && d[1] == 1) return true;
    if (d[0] == rows && d[1] == 1) {
        g->bh = 1;
        return true;
    }
    if (bh >= 1 && bw >= 1 && bh <= 1 << 20 && bw <= 1 << 20 && bw % 32 == 0 && d[0] == parts(rows, bh) &&
        d[1] == parts(cols, bw)) {
        g->bh = bh;
        g->bw = bw;
        return true;
    }
    if (d[0] < 1 || d[1] < 1 || rows % d[0] || cols % d[1] || (d[1] > 1 && cols / d[1] % 32))
        return wrong_scales(b, t, rows, cols);
    g->bh = rows / d[0];
    g->bw = cols / d[1];
    return true;
}

static bool said_quantized(const fa_binder *b) { return b->quant && fa_jget(b->quant, "quant_method"); }

/* ---- FP8 ---- */

static bool import_fp8(fa_binder *b, fa_weight *w, fa_source *s, int64_t n, int64_t rows) {
    grid g = {0};
    if (!s->scales && said_quantized(b)) {
        fa_bind_fail(b, FFAI_EFORMAT, s->t, "F8_E4M3 without a scale in a quantized checkpoint");
        return false;
    }
    if (s->scales && !grid_of(b, &g, s->scales, n, rows, w->cols)) return false;
    const int64_t bw = s->scales && g.cols > 1 ? g.bw : 0;
    w->fmt = FA_FMT_FP8;
    w->bits = 8;
    w->group = (uint16_t)(bw == 0 ? 0 : bw % 128 == 0 ? 128 : bw % 64 == 0 ? 64 : 32);
    w->scale_dtype = FA_F32;
    w->codes = s->t->data;
    w->row_bytes = (size_t)w->cols;
    const int64_t per_row = fa_weight_scales(w);
    w->scale_row_bytes = (size_t)per_row * 4;
    s->made_scales = true;
    float *to = (float *)(void *)fa_bind_host(b, (size_t)w->rows * w->scale_row_bytes);
    w->scales = (const uint8_t *)to;
    for (int64_t r = 0; to && r < w->rows; r++)
        for (int64_t j = 0; j < per_row; j++) *to++ = s->scales ? grid_at(&g, r / rows, r % rows, j * w->group) : 1.0f;
    return w->scales || fa_bind_dry(b);
}

/* ---- affine planes out of scales and zeros ---- */

/* A matrix as groups of `group` columns: scale and zero of group g of row r. */
typedef struct affine {
    const fa_ckpt_tensor *scales, *zeros;
    int bits;
    int64_t group, groups;
    bool by_group;     /* scales are [groups, rows] and not [rows, groups] */
    bool codes_by_row; /* codes are packed along the rows of the matrix, as ours */
    int64_t scale_row; /* scales from one row to the next, where they are by row */
    int64_t zero_row;  /* packed zeros: words from one group (by_group) or row to the next */
    bool awq, less_one;
    bool scaled;          /* zeros are -scale * zero, F16, arranged as the scales are */
    bool zero_row_packed; /* zeros of a row lie in its own words, one after the other */
    int constant;         /* the zero where there are none stored */
} affine;

static float float_at(const fa_ckpt_tensor *t, int64_t i) {
    float f;
    fa_to_f32((fa_dtype)t->dtype, t->data + (size_t)i * fa_dtype_size((fa_dtype)t->dtype), 1, &f);
    return f;
}

static float scale_of(const affine *a, int64_t rows, int64_t r, int64_t g) {
    return float_at(a->scales, a->by_group ? g * rows + r : r * a->scale_row + g);
}

static uint32_t word(const fa_ckpt_tensor *t, int64_t i) {
    uint32_t v;
    memcpy(&v, t->data + 4 * (size_t)i, 4);
    return v;
}

/* The place of row r of 8 among the nibbles of a word. */
static int awq_place(int64_t r) { return (int)(r % 8 / 2 + r % 2 * 4); }

/* Words of zeros that are one less hold the sum of zeros minus ones: adding them at once undoes also what a zero of 0
 * borrowed. */
static int zero_of(const affine *a, int64_t r, int64_t g) {
    const uint32_t top = (1u << a->bits) - 1;
    if (!a->zeros) return a->constant;
    if (a->awq) return (int)(word(a->zeros, g * a->zero_row + r / 8) >> 4 * awq_place(r) & 15);
    if (a->zero_row_packed) return (int)(word(a->zeros, r * a->zero_row + g / 8) >> (int)(g % 8) * 4 & 15);
    if (!a->by_group) { /* packed along the rows, [rows * bits / 32, groups] */
        const int per = 32 / a->bits;
        return (int)(word(a->zeros, r / per * a->groups + g) >> (int)(r % per) * a->bits & top);
    }
    const int64_t bit = r * a->bits, at = g * a->zero_row + bit / 32;
    const int shift = (int)(bit % 32);
    if (32 % a->bits == 0) return (int)((word(a->zeros, at) + (a->less_one ? 0xFFFFFFFFu / top : 0)) >> shift & top);
    uint64_t v = word(a->zeros, at);
    if (shift + a->bits > 32) v |= (uint64_t)word(a->zeros, at + 1) << 32;
    return (int)(((v >> shift) + a->less_one) & top);
}

static float bias_of(const affine *a, int64_t rows, int64_t r, int64_t g) {
    if (a->scaled) return float_at(a->zeros, g * rows + r);
    return -scale_of(a, rows, r, g) * (float)zero_of(a, r, g);
}

/* Group size of ours that divides theirs; 0: none does. */
static int our_group(int64_t group) { return group % 128 == 0 ? 128 : group % 64 == 0 ? 64 : group % 32 == 0 ? 32 : 0; }

static float rounded(fa_dtype t, float f) {
    return t == FA_F16 ? fa_f16_to_f32(fa_f32_to_f16(f)) : t == FA_BF16 ? fa_bf16_to_f32(fa_f32_to_bf16(f)) : f;
}

static void put(fa_dtype t, uint8_t *to, float f) {
    const uint16_t h = t == FA_F16 ? fa_f32_to_f16(f) : fa_f32_to_bf16(f);
    if (t == FA_F32)
        memcpy(to, &f, 4);
    else
        memcpy(to, &h, 2);
}

/* Scales and biases of w, whose bits are set: bias = -scale * zero, in the stored type when it holds them all. */
static bool affine_planes(fa_binder *b, fa_weight *w, fa_source *s, const affine *a) {
    fa_dtype t = (fa_dtype)a->scales->dtype;
    if (t != FA_F16 && t != FA_BF16) t = FA_F32;
    for (int64_t r = 0; t != FA_F32 && r < w->rows; r++)
        for (int64_t g = 0; g < a->groups; g++) {
            const float bias = bias_of(a, w->rows, r, g);
            if (rounded(t, bias) == bias) continue;
            t = FA_F32;
            break;
        }
    w->fmt = FA_FMT_AFFINE;
    w->bits = (uint8_t)a->bits;
    w->group = (uint16_t)our_group(a->group);
    w->scale_dtype = (uint8_t)t;
    const int64_t n = w->cols / w->group;
    const size_t size = fa_dtype_size(t);
    w->scale_row_bytes = (size_t)n * size;
    s->made_scales = true;
    uint8_t *scales = fa_bind_host(b, (size_t)w->rows * w->scale_row_bytes);
    uint8_t *biases = fa_bind_host(b, (size_t)w->rows * w->scale_row_bytes);
    w->scales = scales;
    w->biases = biases;
    if (!scales || !biases) return fa_bind_dry(b);
    for (int64_t r = 0; r < w->rows; r++)
        for (int64_t j = 0; j < n; j++, scales += size, biases += size) {
            const int64_t g = j * w->group / a->group;
            put(t, scales, scale_of(a, w->rows, r, g));
            put(t, biases, bias_of(a, w->rows, r, g));
        }
    return true;
}

/* ---- int8 ---- */

static bool import_int8(fa_binder *b, fa_weight *w, fa_source *s, int64_t n, int64_t rows) {
    grid g;
    if (!grid_of(b, &g, s->scales, n, rows, w->cols)) return false;
    const int group = our_group(g.cols > 1 ? g.bw : w->cols);
    if (!group || (g.cols > 1 && w->cols % group)) {
        fa_bind_fail(b, FFAI_ENOTSUP, s->t, "int8 with %lld columns: not a multiple of 32", (long long)w->cols);
        return false;
    }
    w->fmt = FA_FMT_AFFINE;
    w->bits = 8;
    w->group = (uint16_t)group;
    w->scale_dtype = FA_F32;
    w->row_bytes = (size_t)w->cols;
    w->scale_row_bytes = (size_t)(w->cols / group) * 4;
    s->made = s->made_scales = true;
    const size_t bytes = (size_t)w->rows * w->row_bytes;
    uint8_t *codes = fa_bind_host(b, bytes);
    float *scales = (float *)(void *)fa_bind_host(b, (size_t)w->rows * w->scale_row_bytes);
    float *biases = (float *)(void *)fa_bind_host(b, (size_t)w->rows * w->scale_row_bytes);
    w->codes = codes;
    w->scales = (const uint8_t *)scales;
    w->biases = (const uint8_t *)biases;
    if (!codes || !scales || !biases) return fa_bind_dry(b);
    for (size_t i = 0; i < bytes; i++) codes[i] = s->t->data[i] ^ 0x80;
    for (int64_t r = 0; r < w->rows; r++)
        for (int64_t j = 0; j < w->cols / group; j++) {
            *scales = grid_at(&g, r / rows, r % rows, j * group);
            *biases++ = -128.0f * *scales++;
        }
    return true;
}

/* [a, b], of 32-bit words. */
static bool words(const fa_ckpt_tensor *t, int64_t a, int64_t b) {
    return (t->dtype == FA_I32 || t->dtype == FA_U32) && t->n_dim == 2 && t->dim[0] == a && t->dim[1] == b;
}

static bool no_form(fa_binder *b, const fa_weight *w, const fa_source *s) {
    fa_bind_wrong(b, s->t, "with its scales and zeros it is no quantized [%lld, %lld]", (long long)w->rows,
                  (long long)w->cols);
    return false;
}

/* ---- GPTQ and AWQ ---- */

/* [words][rows] to [rows][words]: a GPTQ column is one of our rows. */
static void turn_words(const fa_ckpt_tensor *q, int64_t n, int64_t rows, uint8_t *to) {
    enum { SIDE = 16 };
    for (int64_t r0 = 0; r0 < rows; r0 += SIDE)
        for (int64_t i = 0; i < n; i++)
            for (int64_t r = r0; r < r0 + SIDE && r < rows; r++)
                memcpy(to + (size_t)(r * n + i) * 4, q->data + (size_t)(i * rows + r) * 4, 4);
}

/* AWQ: 8 columns of 8 rows at a time, which are 8 words one below the other. */
static void turn_awq(const fa_ckpt_tensor *q, int64_t cols, int64_t rows, uint8_t *to) {
    enum { SIDE = 16 };
    for (int64_t j0 = 0; j0 < rows / 8; j0 += SIDE)
        for (int64_t k = 0; k < cols; k += 8)
            for (int64_t j = j0; j < j0 + SIDE && j < rows / 8; j++) {
                uint32_t out[8] = {0};
                for (int i = 0; i < 8; i++) {
                    const uint32_t v = word(q, (k + i) * (rows / 8) + j);
                    for (int r = 0; r < 8; r++) out[r] |= (v >> 4 * awq_place(r) & 15) << 4 * i;
                }
                for (int r = 0; r < 8; r++) memcpy(to + (size_t)((8 * j + r) * cols + k) / 2, &out[r], 4);
            }
}

/* The stored code of column k of row r. */
static int code_of(const affine *a, const fa_ckpt_tensor *q, int64_t rows, int64_t r, int64_t k) {
    if (a->awq) return (int)(word(q, k * (rows / 8) + r / 8) >> 4 * awq_place(r) & 15);
    const int64_t bit = k * a->bits, at = bit / 32;
    const int shift = (int)(bit % 32);
    if (a->codes_by_row) return (int)(word(q, r * q->dim[1] + at) >> shift & ((1u << a->bits) - 1));
    uint64_t v = word(q, at * rows + r);
    if (shift + a->bits > 32) v |= (uint64_t)word(q, (at + 1) * rows + r) << 32;
    return (int)(v >> shift & ((1u << a->bits) - 1));
}

static int64_t group_at(const fa_ckpt_tensor *order, int64_t group, int64_t k) {
    return order ? (int32_t)word(order, k) : k / group;
}

/* As floats: groups that our formats do not have. */
static bool import_floats(fa_binder *b, fa_weight *w, fa_source *s, const affine *a, const fa_ckpt_tensor *order) {
    fa_dtype t = a->scales->dtype == FA_BF16 ? FA_F32 : FA_F16;
    fa_name_list_add(&b->widened, s->t->name);
    for (int pass = 0; pass < 2; pass++) {
        const size_t size = fa_dtype_size(t);
        uint8_t *to = NULL;
        if (pass) {
            w->fmt = t == FA_F16 ? FA_FMT_F16 : FA_FMT_F32;
            w->row_bytes = (size_t)w->cols * size;
            s->made = true;
            w->codes = to = fa_bind_host(b, (size_t)w->rows * w->row_bytes);
            if (!to) return fa_bind_dry(b);
        } else if (t == FA_F32)
            continue;
        for (int64_t r = 0; (pass || t == FA_F16) && r < w->rows; r++)
            for (int64_t k = 0; k < w->cols; k++) {
                const int64_t g = group_at(order, a->group, k);
                const float f =
                    scale_of(a, w->rows, r, g) * (float)(code_of(a, s->t, w->rows, r, k) - zero_of(a, r, g));
                if (pass)
                    put(t, to + (size_t)(r * w->cols + k) * size, f);
                else if (rounded(t, f) != f) {
                    t = FA_F32;
                    break;
                }
            }
    }
    return true;
}

/* The order of columns, where it is one: g_idx of -1 stands for none. */
static const fa_ckpt_tensor *order_of(fa_binder *b, const char *name, const char *suffix) {
    const fa_ckpt_tensor *t = fa_bind_find(b, name, suffix);
    if (!t) return NULL;
    fa_bind_used(b, t, FA_USE_FLOATS);
    return t->dtype == FA_I32 && t->bytes >= 4 && word(t, 0) == UINT32_MAX ? NULL : t;
}

/* I32 [cols], or none. */
static bool is_order(const fa_ckpt_tensor *t, int64_t cols) {
    return !t || ((t->dtype == FA_I32 || t->dtype == FA_U32) && t->n_dim == 1 && t->dim[0] == cols);
}

/* Columns by their groups, as many in each: to[j] is the column that stands at j. False: groups of several sizes. */
static bool sorted(const fa_ckpt_tensor *order, const affine *a, int64_t cols, int32_t *to) {
    int64_t *at = FA_NEWN(int64_t, (size_t)a->groups);
    bool even = at && a->group * a->groups == cols;
    for (int64_t g = 0; even && g < a->groups; g++) at[g] = g * a->group;
    for (int64_t k = 0; even && k < cols; k++) {
        const int64_t g = group_at(order, a->group, k);
        even = at[g] < (g + 1) * a->group;
        if (even) to[at[g]++] = (int32_t)k;
    }
    fa_free(at);
    return even;
}

/* Codes of `bits` bits, lowest first: one a byte, and back. */
static void spread(const uint8_t *row, int bits, int64_t n, uint8_t *out) {
    uint32_t have = 0, left = 0;
    for (int64_t k = 0; k < n; k++) {
        if (left < (uint32_t)bits) {
            have |= (uint32_t)*row++ << left;
            left += 8;
        }
        out[k] = (uint8_t)(have & ((1u << bits) - 1));
        have >>= bits;
        left -= (uint32_t)bits;
    }
}

static void pack_picked(const uint8_t *codes, const int32_t *order, int bits, int64_t n, uint8_t *row) {
    uint32_t have = 0, held = 0;
    for (int64_t k = 0; k < n; k++) {
        have |= (uint32_t)codes[order[k]] << held;
        for (held += (uint32_t)bits; held >= 8; held -= 8, have >>= 8) *row++ = (uint8_t)have;
    }
}

/* Moves the columns of codes [rows, row_bytes] in place. */
static bool reorder(fa_binder *b, const fa_weight *w, int bits, const int32_t *order, const uint8_t *from,
                    uint8_t *to) {
    uint8_t *row = FA_NEWN(uint8_t, (size_t)w->cols);
    if (!row) fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %lld codes", (long long)w->cols);
    for (int64_t r = 0; row && r < w->rows; r++) {
        spread(from + (size_t)r * w->row_bytes, bits, w->cols, row);
        pack_picked(row, order, bits, w->cols, to + (size_t)r * w->row_bytes);
    }
    fa_free(row);
    return row != NULL;
}

/* Where the layer finds its order. */
static bool place_order(fa_binder *b, fa_source *s, const int32_t *order, int64_t cols) {
    float *host = NULL;
    s->order = fa_bind_place_vector(b, NULL, cols, &host);
    for (int64_t k = 0; host && k < cols; k++) host[k] = (float)order[k];
    return s->order != NULL;
}

/* Are the groups runs of `group` columns? False with *bad, and an error: a number that is no group. */
static bool runs(fa_binder *b, const fa_ckpt_tensor *order, const affine *a, int64_t cols, bool *bad) {
    bool ok = true;
    for (int64_t k = 0; order && k < cols; k++) {
        const int64_t g = group_at(order, a->group, k);
        if (g < 0 || g >= a->groups) *bad = true;
        ok = ok && g == k / a->group;
    }
    if (*bad) fa_bind_fail(b, FFAI_EFORMAT, order, "a group that is not within 0 .. %lld", (long long)a->groups - 1);
    return ok && !*bad;
}

/* Groups that are no runs of columns, or of a size that is not ours: w->row_bytes is that of the codes. */
static bool import_ordered(fa_binder *b, fa_weight *w, fa_source *s, const affine *a, const fa_ckpt_tensor *order) {
    int32_t *to = FA_NEWN(int32_t, (size_t)w->cols);
    if (!to) {
        fa_bind_fail(b, FFAI_ENOMEM, s->t, "no memory for an order of %lld columns", (long long)w->cols);
        return false;
    }
    if (!order || b->experts || a->awq || !our_group(a->group) || !sorted(order, a, w->cols, to)) {
        fa_free(to);
        return import_floats(b, w, s, a, order);
    }
    s->made = true;
    uint8_t *codes = fa_bind_host(b, (size_t)w->rows * w->row_bytes);
    w->codes = codes;
    bool ok = codes || fa_bind_dry(b);
    if (codes && !a->codes_by_row) turn_words(s->t, w->cols * a->bits / 32, w->rows, codes);
    if (codes) ok = reorder(b, w, a->bits, to, a->codes_by_row ? s->t->data : codes, codes);
    ok = ok && place_order(b, s, to, w->cols) && affine_planes(b, w, s, a);
    fa_free(to);
    return ok;
}

/* Bits from the shapes; false: no such matrix. */
static bool gptq_shape(affine *a, const fa_weight *w, const fa_source *s, const fa_ckpt_tensor *order) {
    const fa_ckpt_tensor *q = s->t, *st = s->scales;
    if (!st || !a->zeros || !float_type(st->dtype) || st->n_dim != 2 || st->dim[1] != w->rows || q->n_dim != 2 ||
        q->dim[0] > w->cols || w->cols < 32 || w->rows < 8)
        return false;
    a->groups = st->dim[0];
    a->by_group = true;
    if (a->awq) {
        a->bits = 4;
        if (!words(q, w->cols, w->rows / 8) || w->rows % 8 || w->cols % 8) return false;
    } else {
        a->bits = (int)(q->dim[0] * 32 / w->cols);
        if ((a->bits != 2 && a->bits != 3 && a->bits != 4 && a->bits != 8) || w->cols % 32 ||
            !words(q, w->cols * a->bits / 32, w->rows) || w->rows * a->bits % 32)
            return false;
    }
    a->zero_row = w->rows * a->bits / 32;
    if (a->groups < 1 || a->groups > w->cols || !words(a->zeros, a->groups, a->zero_row)) return false;
    if (!is_order(order, w->cols)) return false;
    a->group = parts(w->cols, a->groups);
    return order || w->cols % a->groups == 0;
}

/* ---- AWQ for products of one row ---- */

/* I16 word i. */
static unsigned half_word(const fa_ckpt_tensor *t, int64_t i) {
    uint16_t v;
    memcpy(&v, t->data + 2 * (size_t)i, 2);
    return v;
}

/* Column 8 a + 2 b + c of each 32 stands at 8 b + 4 c + a; 64 such columns of four rows are 64 words of four nibbles,
 * row after row. */
static void turn_fast(const fa_ckpt_tensor *q, int64_t cols, int64_t rows, uint8_t *to) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < cols; k += 2) {
            unsigned code[2];
            for (int64_t i = k; i < k + 2; i++) {
                const int64_t at = i % 64 / 32 * 32 + i % 8 / 2 * 8 + i % 2 * 4 + i % 32 / 8,
                              word = r % 4 * 16 + at / 4;
                code[i - k] = half_word(q, r / 4 * cols + i / 64 * 64 + word) >> (int)(at % 4) * 4 & 15;
            }
            *to++ = (uint8_t)(code[0] | code[1] << 4);
        }
}

/* Sizes of both layouts; false: no such matrix. */
static bool gemv_shape(fa_binder *b, affine *a, const fa_weight *w, const fa_source *s, bool fast) {
    const fa_ckpt_tensor *q = s->t, *st = s->scales, *z = s->biases;
    const int64_t group = fa_jint(fa_jget(b->quant, "group_size"), 128);
    a->bits = 4;
    a->group = group == -1 ? w->cols : group;
    if (!st || !z || a->group < 1 || w->cols % a->group || w->cols % 64 || w->rows % 8 || !our_group(a->group) ||
        st->dtype != FA_F16 || st->n_dim != 2)
        return false;
    a->groups = w->cols / a->group;
    a->by_group = a->scaled = fast;
    a->codes_by_row = a->zero_row_packed = !fast;
    if (fast)
        return q->dtype == FA_I16 && q->n_dim == 2 && q->dim[0] == w->rows / 4 && q->dim[1] == w->cols &&
               st->dim[0] >= a->groups && st->dim[1] == w->rows && z->dtype == FA_F16 && z->n_dim == 2 &&
               z->dim[0] == st->dim[0] && z->dim[1] == w->rows;
    a->scale_row = st->dim[1];
    a->zero_row = z->n_dim == 2 ? z->dim[1] : 0;
    return words(q, w->rows, w->cols / 8) && st->dim[0] == w->rows && a->scale_row >= a->groups &&
           words(z, w->rows, a->zero_row) && a->zero_row >= parts(a->groups, 8);
}

static bool import_gemv(fa_binder *b, fa_weight *w, fa_source *s, bool fast, const char *name) {
    if (fast) s->biases = fa_bind_find(b, name, ".scaled_zeros");
    affine a = {.scales = s->scales, .zeros = s->biases};
    if (!gemv_shape(b, &a, w, s, fast)) return no_form(b, w, s);
    w->codes = s->t->data;
    w->row_bytes = (size_t)w->cols / 2;
    if (fast) {
        s->made = true;
        uint8_t *codes = fa_bind_host(b, (size_t)w->rows * w->row_bytes);
        w->codes = codes;
        if (!codes && !fa_bind_dry(b)) return false;
        if (codes) turn_fast(s->t, w->cols, w->rows, codes);
    }
    return affine_planes(b, w, s, &a);
}

static bool import_gptq(fa_binder *b, fa_weight *w, fa_source *s, const char *name) {
    const char *method = fa_jstr(fa_jget(b->quant, "quant_method"), NULL),
               *format = fa_jstr(fa_jget(b->quant, "checkpoint_format"), NULL),
               *version = fa_jstr(fa_jget(b->quant, "version"), NULL);
    const fa_ckpt_tensor *order = order_of(b, name, ".g_idx");
    if (!method) method = "";
    if (!format) format = "gptq";
    if (!version) version = "gemm";
    s->scales = fa_bind_find(b, name, ".scales");
    s->biases = fa_bind_find(b, name, ".qzeros");
    affine a = {.scales = s->scales, .zeros = s->biases};
    a.awq = strcmp(method, "awq") == 0 || (!method[0] && s->t->n_dim && s->t->dim[0] == w->cols);
    a.less_one = !a.awq && strcmp(format, "gptq_v2") != 0;
    if (a.awq && (strcasecmp(version, "gemv") == 0 || strcasecmp(version, "gemv_fast") == 0))
        return import_gemv(b, w, s, version[4] != 0, name);
    if (a.awq && strcasecmp(version, "gemm") != 0) {
        fa_bind_fail(b, FFAI_ENOTSUP, s->t, "AWQ layout \"%s\" is not supported (gemm, gemv, gemv_fast)", version);
        return false;
    }
    if (!a.awq && method[0] && strcmp(method, "gptq") != 0) {
        fa_bind_fail(b, FFAI_ENOTSUP, s->t, "quantization method \"%s\" with packed weights is not supported", method);
        return false;
    }
    bool bad = false;
    if (!gptq_shape(&a, w, s, order)) return no_form(b, w, s);
    const bool plain = runs(b, order, &a, w->cols, &bad);
    if (bad) return false;
    w->row_bytes = (size_t)(w->cols * a.bits / 8);
    if (!plain || !our_group(a.group)) return import_ordered(b, w, s, &a, order);
    s->made = true;
    uint8_t *codes = fa_bind_host(b, (size_t)w->rows * w->row_bytes);
    w->codes = codes;
    if (!codes && !fa_bind_dry(b)) return false;
    if (codes && a.awq) turn_awq(s->t, w->cols, w->rows, codes);
    if (codes && !a.awq) turn_words(s->t, w->cols * a.bits / 32, w->rows, codes);
    return affine_planes(b, w, s, &a);
}

/* ---- compressed-tensors, packed ---- */

static bool import_packed(fa_binder *b, fa_weight *w, fa_source *s, const char *name) {
    const fa_ckpt_tensor *t = s->t, *st = s->scales;
    const fa_ckpt_tensor *order = order_of(b, name, ".weight_g_idx"), *shape = fa_bind_find(b, name, ".weight_shape");
    affine a = {.scales = st, .zeros = fa_bind_find(b, name, ".weight_zero_point"), .codes_by_row = true};
    bool bad = false;
    if (!st || !float_type(st->dtype) || st->n_dim != 2 || st->dim[0] != w->rows || t->n_dim != 2 || w->cols < 32 ||
        t->dim[1] > w->cols || t->dim[1] * 32 % w->cols || !is_order(order, w->cols))
        return no_form(b, w, s);
    a.bits = (int)(t->dim[1] * 32 / w->cols);
    a.groups = a.scale_row = st->dim[1];
    if ((a.bits != 4 && a.bits != 8) || !words(t, w->rows, w->cols * a.bits / 32) || a.groups < 1 ||
        a.groups > w->cols || w->cols % a.groups || !our_group(a.group = w->cols / a.groups) ||
        (a.zeros && !words(a.zeros, parts(w->rows * a.bits, 32), a.groups)))
        return no_form(b, w, s);
    a.constant = 1 << (a.bits - 1);
    s->biases = a.zeros;
    if (shape) fa_bind_used(b, shape, FA_USE_FLOATS);
    w->row_bytes = (size_t)(w->cols * a.bits / 8);
    if (!runs(b, order, &a, w->cols, &bad)) return !bad && import_ordered(b, w, s, &a, order);
    w->codes = t->data;
    return affine_planes(b, w, s, &a);
}

/* ---- which ---- */

bool fa_bind_imports(fa_binder *b, fa_source *s, int64_t n, const char *name) {
    if (s->t && (s->t->dtype == FA_F8_E4M3 || s->t->dtype == FA_I8)) {
        static const char *const kinds[] = {".weight_scale_inv", ".weight_scale", "_scale_inv", "_scale"};
        for (size_t i = 0; !s->scales && i < (n ? 4u : 2u); i++) s->scales = fa_bind_find(b, name, kinds[i]);
        return s->t->dtype == FA_F8_E4M3 || s->scales;
    }
    if (s->t && !n && fa_bind_is_fp4(s->t)) return (s->scales = fa_bind_find(b, name, ".weight_scale")) != NULL;
    if (s->t || n) return false;
    if ((s->t = fa_bind_find(b, name, ".qweight"))) return true;
    if ((s->t = fa_bind_find(b, name, ".weight_packed"))) s->scales = fa_bind_find(b, name, ".weight_scale");
    return s->t != NULL;
}

bool fa_bind_import(fa_binder *b, fa_weight *w, fa_source *s, int64_t n, int64_t rows, const char *name) {
    const fa_ckpt_tensor *t = s->t;
    if (t->dtype == FA_F8_E4M3 || t->dtype == FA_I8) {
        const bool one = !n && t->n_dim == 2 && t->dim[0] == rows && t->dim[1] == w->cols;
        const bool many = n && t->n_dim == 3 && t->dim[0] == n && t->dim[1] == rows && t->dim[2] == w->cols;
        if (!one && !many) {
            fa_bind_wrong(b, t, "%s of another shape than [%lld, %lld]", t->type_name, (long long)rows,
                          (long long)w->cols);
            return false;
        }
        return t->dtype == FA_I8 ? import_int8(b, w, s, n, rows) : import_fp8(b, w, s, n, rows);
    }
    if (fa_bind_is_fp4(t)) return fa_bind_import_fp4(b, w, s, name);
    return fa_bind_find(b, name, ".qweight") == t ? import_gptq(b, w, s, name) : import_packed(b, w, s, name);
}
