/* Binding of what recurrent layers have: convolutions in two layouts, decays that are stored as logarithms, constants.
 */
#include "families/bind.h"

#include <math.h>
#include <string.h>

/* All n values of t as f32, where weights lie; NULL after an error. Values that `host` leaves NULL are there already.
 */
static const float *place(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, float **host) {
    *host = NULL;
    if (!fa_bind_is_floats(b, t)) return NULL;
    const float *p = fa_bind_place_vector(b, t, n, host);
    if (*host) fa_to_f32((fa_dtype)t->dtype, t->data, n, *host);
    fa_bind_took_floats(b, t, n);
    return p;
}

/* Are these the weights of n channels? Else they are wrong. */
static bool is_conv(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, int64_t kernel, bool *mlx) {
    const int64_t *d = t->dim;
    bool torch = t->n_dim == 3 && d[0] == n && d[1] == 1 && d[2] == kernel, turned = t->n_dim == 3 && d[2] == 1;
    if (!torch && !(turned && d[0] == n && d[1] == kernel) && !(t->n_dim == 2 && d[0] == n && d[1] == kernel)) {
        fa_bind_wrong(b, t, "expected [%lld, 1, %lld]", (long long)n, (long long)kernel);
        return false;
    }
    if (mlx) *mlx = turned && !torch; /* a kernel of one value is both */
    return true;
}

void fa_bind_conv(fa_binder *b, fa_conv *out, int64_t n, int64_t kernel, fa_bias bias, bool *mlx, const char *fmt,
                  ...) {
    FA_BIND_NAME(name, fmt);
    float *host;
    *out = (fa_conv){.n = n, .kernel = (int)kernel, .act = FA_ACT_LINEAR};
    if (mlx) *mlx = false;
    if (b->err.code) return;
    if (b->synth) {
        out->w = fa_bind_synth_vector(b, n * kernel, kernel, 0.3f, name, ".weight");
        if (bias == FA_BIAS) out->bias = fa_bind_synth_vector(b, n, 0, 0, name, ".bias");
        return;
    }
    const fa_ckpt_tensor *t = fa_bind_find(b, name, ".weight");
    if (!t) {
        fa_bind_missing(b, name, ".weight");
        return;
    }
    if (!is_conv(b, t, n, kernel, mlx)) return;
    out->w = place(b, t, n * kernel, &host);
    if (bias == FA_NO_BIAS) return;
    char bias_name[FA_NAME_MAX];
    snprintf(bias_name, sizeof bias_name, "%.*s.bias", FA_NAME_MAX - 8, name);
    if (bias == FA_BIAS || fa_bind_has(b, "%s", bias_name)) out->bias = fa_bind_vector(b, n, 0, "%s", bias_name);
}

/* Channels that the parts have together, as far as their number can be told. */
static int64_t channels_of(fa_binder *b, const char *const *name, int n_name) {
    int64_t sum = 0;
    for (int i = 0; i < n_name; i++) {
        const fa_ckpt_tensor *t = fa_bind_find(b, name[i], ".weight");
        if (!t || t->dim[0] > INT32_MAX) return -1;
        sum += t->dim[0];
    }
    return sum;
}

void fa_bind_conv_parts(fa_binder *b, fa_conv *out, int n_name, const char *const *name, const int64_t *n,
                        int64_t kernel, bool *mlx) {
    int64_t total = 0, at = 0;
    float *host;
    for (int i = 0; i < n_name; i++) total += n[i];
    const bool whole = !b->synth && channels_of(b, name, n_name) == total; /* wherever it is cut */
    for (int i = 0; i < n_name; i++)
        if (!whole) fa_bind_conv(b, &out[i], n[i], kernel, FA_NO_BIAS, mlx, "%s", name[i]);
    if (!whole || b->err.code) return;
    const float *all = fa_bind_place_vector(b, NULL, total * kernel, &host);
    for (int i = 0; i < n_name; i++) {
        const fa_ckpt_tensor *t = fa_bind_find(b, name[i], ".weight");
        if (!is_conv(b, t, t->dim[0], kernel, mlx) || !fa_bind_is_floats(b, t)) return;
        if (host) fa_to_f32((fa_dtype)t->dtype, t->data, t->dim[0] * kernel, host + at * kernel);
        fa_bind_took_floats(b, t, t->dim[0] * kernel);
        at += t->dim[0];
    }
    for (int i = 0; i < n_name && all; all += n[i++] * kernel)
        out[i] = (fa_conv){.n = n[i], .kernel = (int)kernel, .w = all, .act = FA_ACT_LINEAR};
}

const float *fa_bind_decay(fa_binder *b, int64_t n, int64_t cols, bool as_is, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    int64_t per = cols ? cols : 1, count = n * per;
    float *host, v;
    if (b->err.code) return NULL;
    if (b->synth) return fa_bind_synth_vector(b, count, 0, -1, name, "");
    const fa_ckpt_tensor *t = fa_bind_find(b, name, "");
    if (!t) {
        fa_bind_missing(b, name, "");
        return NULL;
    }
    bool fits = t->n_dim == 1 ? !cols && t->dim[0] == n : t->n_dim == 2 && t->dim[0] == n && t->dim[1] == per;
    if (!fits) {
        if (cols)
            fa_bind_wrong(b, t, "expected [%lld, %lld]", (long long)n, (long long)cols);
        else
            fa_bind_wrong(b, t, "expected [%lld]", (long long)n);
        return NULL;
    }
    const float *p = place(b, t, count, &host);
    size_t size = fa_dtype_size((fa_dtype)t->dtype);
    for (int64_t i = 0; host && i < count; i++) {
        fa_to_f32((fa_dtype)t->dtype, t->data + (size_t)i * size, 1, &v);
        host[i % per * n + i / per] = as_is ? v : -expf(v);
    }
    return p;
}

const float *fa_bind_constants(fa_binder *b, const float *values, int64_t n) {
    float *host = NULL;
    if (b->err.code) return NULL;
    const float *p = fa_bind_place_vector(b, NULL, n, &host);
    if (host) memcpy(host, values, (size_t)n * sizeof *host);
    return p;
}
