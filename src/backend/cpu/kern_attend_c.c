/* Plain C attention over paged KV: one pass over the pages with a running maximum and sum per row, pages widened to f32
 * once for all rows. */
#include "backend/cpu/kern_attend.h"

#include <math.h>

/* Scratch: the widened K page, the widened V page, then per row the running maximum, the sum and the output. */
static size_t attend_scratch(int n_q, int n_group, int head_dim) {
    size_t d = (size_t)head_dim;
    return (2 * FA_PAGE * d + (size_t)n_q * (size_t)n_group * (d + 2)) * sizeof(float);
}

static float dot(const float *a, const float *b, int n) {
    float s = 0;
    for (int i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

/* One row over tokens [t0, t1) of a widened page. st: [m, l, o[d]]. */
static void visit(const fa_attend_args *a, const float *q, const float *k, const float *v, int t0, int t1, float *st) {
    const int d = a->head_dim;
    float s[FA_PAGE], m = st[0];
    for (int t = t0; t < t1; t++) {
        float x = a->scale * dot(q, k + (ptrdiff_t)t * d, d);
        s[t] = a->softcap > 0 ? a->softcap * tanhf(x / a->softcap) : x;
        m = s[t] > m ? s[t] : m;
    }
    if (m == -INFINITY) return;
    float *o = st + 2, keep = expf(st[0] - m);
    st[0] = m;
    st[1] *= keep;
    for (int i = 0; i < d; i++) o[i] *= keep;
    for (int t = t0; t < t1; t++) {
        float p = expf(s[t] - m);
        st[1] += p;
        for (int i = 0; i < d; i++) o[i] += p * v[(ptrdiff_t)t * d + i];
    }
}

static void widen(const fa_attend_args *a, const void *page, float *out) {
    if (a->kv_dtype == FA_I8)
        fa_kvq_to_f32(page, FA_PAGE, a->head_dim, 0, FA_PAGE, out);
    else
        fa_to_f32(a->kv_dtype, page, (int64_t)FA_PAGE * a->head_dim, out);
}

/* All rows over one page, which is touched only if some row sees a part of it. */
static void visit_page(const fa_attend_args *a, int32_t page, float *kf, float *vf, float *state) {
    const int d = a->head_dim;
    const int32_t first = page * FA_PAGE;
    bool loaded = false;
    for (int i = 0; i < a->n_q; i++) {
        int32_t lo = a->kv_lo[i] > a->pos0 ? a->kv_lo[i] : a->pos0, hi = a->kv_hi[i] < a->pos1 ? a->kv_hi[i] : a->pos1;
        int32_t t0 = lo > first ? lo - first : 0, t1 = hi - first < FA_PAGE ? hi - first : FA_PAGE;
        if (t0 >= t1) continue;
        if (!loaded) {
            widen(a, a->k_page[page], kf);
            widen(a, a->v_page[page], vf);
            loaded = true;
        }
        for (int j = 0; j < a->n_group; j++)
            visit(a, a->q + i * a->q_stride + (ptrdiff_t)j * d, kf, vf, t0, t1,
                  state + ((ptrdiff_t)i * a->n_group + j) * (d + 2));
    }
}

static void attend_combine(const float *const *partial, int n_split, int64_t rows, int n_group, int head_dim,
                           const float *sink, float *out, int64_t out_stride) {
    for (int64_t r = 0; r < rows; r++) {
        float m = sink ? sink[r % n_group] : -INFINITY, *o = out + r / n_group * out_stride + r % n_group * head_dim;
        for (int s = 0; s < n_split; s++) m = fmaxf(m, partial[s][r * (head_dim + 2)]);
        float l = sink && m > -INFINITY ? expf(sink[r % n_group] - m) : 0;
        for (int i = 0; i < head_dim; i++) o[i] = 0;
        for (int s = 0; s < n_split; s++) {
            const float *p = partial[s] + r * (head_dim + 2);
            if (p[0] == -INFINITY) continue;
            float w = expf(p[0] - m);
            l += w * p[1];
            for (int i = 0; i < head_dim; i++) o[i] += w * p[2 + i];
        }
        for (int i = 0; i < head_dim; i++) o[i] = l > 0 ? o[i] / l : 0;
    }
}

static void attend(const fa_attend_args *a, void *scratch) {
    const int d = a->head_dim;
    const int64_t rows = (int64_t)a->n_q * a->n_group;
    float *kf = scratch, *vf = kf + (ptrdiff_t)FA_PAGE * d,
          *state = a->partial ? a->partial : vf + (ptrdiff_t)FA_PAGE * d;
    for (int64_t r = 0; r < rows; r++) {
        float *st = state + r * (d + 2);
        memset(st, 0, (size_t)(d + 2) * sizeof *st);
        st[0] = -INFINITY;
    }
    int32_t lo = INT32_MAX, hi = 0;
    for (int i = 0; i < a->n_q; i++) {
        lo = a->kv_lo[i] < lo ? a->kv_lo[i] : lo;
        hi = a->kv_hi[i] > hi ? a->kv_hi[i] : hi;
    }
    lo = lo > a->pos0 ? lo : a->pos0;
    hi = hi < a->pos1 ? hi : a->pos1;
    for (int32_t p = lo / FA_PAGE; lo < hi && p <= (hi - 1) / FA_PAGE; p++) visit_page(a, p, kf, vf, state);
    if (a->partial) return;
    const float *one[1] = {state};
    attend_combine(one, 1, rows, a->n_group, d, a->sink, a->out, a->out_stride);
}

void fa_attend_init_c(fa_kernels *k) {
    k->attend = attend;
    k->attend_scratch = attend_scratch;
    k->attend_q_tile = 32;
    k->attend_combine = attend_combine;
}
