/* Values of test tensors, bit for bit those of tools/fixtures/rng.py: value i comes from the counter stream of
 * base/rng.h whose seed is the FNV-1a hash of the tensor name xor the fixture's seed. */
#include "families/gen.h"

#include "base/rng.h"
#include "tensor/dtype.h"

#include <string.h>

static uint64_t fnv1a(const char *s) {
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (; *s; s++) h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001B3);
    return h;
}

/* Sum of two 24-bit uniforms minus one: exact in float, [-1, 1). */
static double triangular(uint64_t seed, uint64_t i) {
    uint64_t r = fa_rng_at(seed, i);
    return (double)((int64_t)(r >> 40) + (int64_t)(r >> 16 & 0xFFFFFF) - (1 << 24)) * 0x1p-24;
}

static double value(double base, double gain, uint64_t seed, uint64_t i) {
    double p = gain * triangular(seed, i);
    return base + p;
}

static int64_t count(const fa_jnode *t) {
    int64_t n = 1;
    for (const fa_jnode *d = fa_jfirst(fa_jget(t, "shape")); d; d = fa_jnext(d)) n *= fa_jint(d, 0);
    return n;
}

static void put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* F32, F16, BF16: base + gain * triangular, rounded to float and then to the type. */
static void floats(uint8_t *out, const fa_jnode *t, const char *dtype, int64_t n, uint64_t seed) {
    double base = fa_jnum(fa_jget(t, "base"), 0), gain = fa_jnum(fa_jget(t, "gain"), 0);
    for (int64_t i = 0; i < n; i++) {
        float v = (float)value(base, gain, seed, (uint64_t)i);
        if (!strcmp(dtype, "F32"))
            memcpy(out + 4 * i, &v, 4);
        else
            put16(out + 2 * i, dtype[0] == 'B' ? fa_f32_to_bf16(v) : fa_f32_to_f16(v));
    }
}

/* GGUF blocks: random bytes, then the float16 fields [offset, base, gain] of every block from streams of their own. */
static void blocks(uint8_t *out, const fa_jnode *t, int64_t n_block, size_t size, uint64_t seed) {
    size_t bytes = (size_t)n_block * size;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t r = fa_rng_at(seed, i / 8);
        for (size_t k = 0; k < 8 && i + k < bytes; k++) out[i + k] = (uint8_t)(r >> 8 * k);
    }
    uint64_t field = 1;
    for (const fa_jnode *f = fa_jfirst(fa_jget(t, "f16")); f; f = fa_jnext(f), field++) {
        const fa_jnode *off = fa_jfirst(f), *base = fa_jnext(off), *gain = fa_jnext(base);
        uint64_t s = seed ^ field * UINT64_C(0x5851F42D4C957F2D);
        for (int64_t b = 0; b < n_block; b++)
            put16(out + (size_t)b * size + (size_t)fa_jint(off, 0),
                  fa_f32_to_f16((float)value(fa_jnum(base, 0), fa_jnum(gain, 0), s, (uint64_t)b)));
    }
    for (const fa_jnode *f = fa_jfirst(fa_jget(t, "u8")); f; f = fa_jnext(f), field++) { /* bytes [offset, lo, span] */
        const fa_jnode *off = fa_jfirst(f), *lo = fa_jnext(off), *span = fa_jnext(lo);
        uint64_t s = seed ^ field * UINT64_C(0x5851F42D4C957F2D), n = (uint64_t)fa_jint(span, 1);
        for (int64_t b = 0; b < n_block; b++)
            out[(size_t)b * size + (size_t)fa_jint(off, 0)] =
                (uint8_t)((uint64_t)fa_jint(lo, 0) + (fa_rng_at(s, (uint64_t)b) >> 32) % n);
    }
}

/* U8, F8_E4M3, F8_E8M0: lo + r mod span. U32, I32: uniform bits, of which "and" may leave some and "or" set some; I32
 * also i / div, i mod `mod`, or lo + r mod span. */
static void integers(uint8_t *out, const fa_jnode *t, bool u8, int64_t n, uint64_t seed) {
    const int64_t div = fa_jint(fa_jget(t, "div"), 0), mod = fa_jint(fa_jget(t, "mod"), 0),
                  span = fa_jint(fa_jget(t, "span"), 0);
    const uint32_t mask = (uint32_t)fa_jint(fa_jget(t, "and"), 0xFFFFFFFF),
                   set = (uint32_t)fa_jint(fa_jget(t, "or"), 0);
    for (int64_t i = 0; i < n; i++) {
        uint32_t r = ((uint32_t)(fa_rng_at(seed, (uint64_t)i) >> 32) & mask) | set;
        if (span) r = (uint32_t)fa_jint(fa_jget(t, "lo"), 0) + r % (uint32_t)span;
        if (div) r = (uint32_t)(i / div);
        if (mod) r = (uint32_t)(i % mod);
        for (int k = 0; k < (u8 ? 1 : 4); k++) out[(u8 ? 1 : 4) * i + k] = (uint8_t)(r >> 8 * k);
    }
}

static void words16(uint8_t *out, int64_t n, uint64_t seed) {
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) out[2 * i + k] = (uint8_t)(fa_rng_at(seed, (uint64_t)i) >> (48 + 8 * k));
}

/* I8, F8_E4M3: uniform bytes; no NaN. */
static void bytes8(uint8_t *out, bool f8, int64_t n, uint64_t seed) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = (uint8_t)(fa_rng_at(seed, (uint64_t)i) >> 56);
        if (f8 && out[i] % 128 == 127) out[i] ^= 1;
    }
}

int fx_tensor(fa_buf *b, const fa_jnode *t, const char *name, uint64_t seed, fa_error *err) {
    const char *dtype = fa_jstr(fa_jget(t, "dtype"), NULL);
    const fa_jnode *block = fa_jget(t, "block");
    int64_t n = count(t), vals = fa_jint(fa_jfirst(block), 0);
    size_t unit = block                                            ? (size_t)fa_jint(fa_jnext(fa_jfirst(block)), 0)
                  : !dtype                                         ? 0
                  : strstr(dtype, "8")                             ? 1
                  : strchr("FUI", dtype[0]) && strstr(dtype, "32") ? 4
                                                                   : 2;
    if (!dtype || n <= 0 || n > 1 << 26 || !unit || (block && (vals <= 0 || n % vals)))
        return fa_fail(err, FFAI_EFORMAT, "fixture tensor %s: bad shape or dtype", name);
    size_t bytes = (size_t)(block ? n / vals : n) * unit;
    if (!fa_buf_reserve(b, bytes))
        return fa_fail(err, FFAI_ENOMEM, "fixture tensor %s: no memory for %zu bytes", name, bytes);
    uint8_t *out = (uint8_t *)b->data + b->len;
    seed ^= fnv1a(name);
    if (block)
        blocks(out, t, n / vals, unit, seed);
    else if (!strcmp(dtype, "I16"))
        words16(out, n, seed);
    else if (!strcmp(dtype, "I8") || (!strcmp(dtype, "F8_E4M3") && !fa_jget(t, "span")))
        bytes8(out, dtype[0] == 'F', n, seed);
    else if (dtype[0] == 'U' || dtype[0] == 'I' || dtype[1] == '8')
        integers(out, t, unit == 1, n, seed);
    else
        floats(out, t, dtype, n, seed);
    b->len += bytes;
    b->data[b->len] = 0;
    return 0;
}
