/* Normalizers: what is done to the text between added tokens before it is cut into words. A step that changes nothing
 * copies nothing. */
#include "text/spm.h"
#include "text/norm_chars.h"
#include "text/ucd.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

static int no_memory(fa_enc *e) {
    return e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory to normalize the text");
}

/* ---- literal and pattern replacement ---- */

static const char *find(const char *s, const char *end, const char *what, size_t n) {
    while (s < end) {
        const char *p = (const char *)memchr(s, what[0], (size_t)(end - s));
        if (!p || (size_t)(end - p) < n) return NULL;
        if (memcmp(p, what, n) == 0) return p;
        s = p + 1;
    }
    return NULL;
}

/* Where the end of the zero part of a text is behind a replacement of [a, b) by k bytes that are aligned to the last
 * byte of it; *at: how far the source has been copied, to *out. */
static void move_zero(size_t zero, bool at0, size_t *at, size_t *out, size_t *z, size_t a, size_t b, size_t k) {
    if (zero > *at) *z = *out + (zero < a ? zero : a) - *at;
    *out += a - *at + k;
    if (b ? zero >= b : at0) *z = *out;
    *at = b;
}

static void replace(const fa_norm *m, const char *s, size_t n, fa_buf *out, size_t *zero) {
    const char *end = s + n, *hit;
    size_t at = 0, o = 0, z = 0;
    const char *near = *zero && n - *zero > m->n_from ? s + *zero + m->n_from : end;
    for (const char *p = s; *zero && (hit = find(p, near, m->from, m->n_from)) && hit < s + *zero; p = hit + m->n_from)
        move_zero(*zero, true, &at, &o, &z, (size_t)(hit - s), (size_t)(hit - s) + m->n_from, m->n_to);
    if (*zero > at) z = o + *zero - at;
    *zero = z;
    if (m->n_from == 1 && m->n_to <= 3) { /* " " to "▁": each step writes at most 3 bytes */
        if (!fa_buf_reserve(out, n * 3 + 1)) return;
        char *w = out->data + out->len;
        for (; s < end; s++) {
            if (*s == m->from[0]) {
                memcpy(w, m->to, m->n_to);
                w += m->n_to;
            } else {
                *w++ = *s;
            }
        }
        *w = 0;
        out->len = (size_t)(w - out->data);
        return;
    }
    for (; (hit = find(s, end, m->from, m->n_from)); s = hit + m->n_from) {
        fa_buf_add(out, s, (size_t)(hit - s));
        fa_buf_add(out, m->to, m->n_to);
    }
    fa_buf_add(out, s, (size_t)(end - s));
}

static int replace_re(fa_enc *e, const fa_norm *m, const char *s, size_t n, fa_buf *out, size_t *zero) {
    size_t from = 0, at = 0, o = 0, z = 0;
    fa_regex_at it = {0};
    int rc;
    while ((rc = fa_regex_next(m->re, &e->re, s, n, &it, e->err)) > 0) {
        fa_buf_add(out, s + from, it.a - from);
        fa_buf_add(out, m->to, m->n_to);
        from = it.b;
        move_zero(*zero, e->at0, &at, &o, &z, it.a, it.b, m->n_to);
    }
    if (rc) return e->rc = rc;
    if (*zero > at) z = o + *zero - at;
    *zero = z;
    fa_buf_add(out, s + from, n - from);
    return FFAI_OK;
}

/* ---- Unicode normalization forms ---- */

static inline uint32_t ccc(uint32_t cp) {
    return cp < 0x300 ? 0 : (uint32_t)utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
}

/* Stable sort by combining class of one run of marks, by counting: a run may be the whole text. tmp has room for n. */
static void sort_marks(uint32_t *cp, size_t n, uint32_t *tmp) {
    size_t at[257] = {0};
    bool sorted = true;
    for (size_t i = 1; i < n && sorted; i++) sorted = ccc(cp[i - 1]) <= ccc(cp[i]);
    if (sorted) return;
    if (n < 32) { /* insertion */
        for (size_t i = 1; i < n; i++) {
            uint32_t c = cp[i], k = ccc(c);
            size_t j = i;
            for (; j && ccc(cp[j - 1]) > k; j--) cp[j] = cp[j - 1];
            cp[j] = c;
        }
        return;
    }
    for (size_t i = 0; i < n; i++) at[ccc(cp[i]) + 1]++;
    for (size_t i = 0; i < 256; i++) at[i + 1] += at[i];
    for (size_t i = 0; i < n; i++) tmp[at[ccc(cp[i])]++] = cp[i];
    memcpy(cp, tmp, n * sizeof *cp);
}

static void reorder(uint32_t *cp, size_t n, uint32_t *tmp) {
    for (size_t i = 0; i < n;) {
        size_t z = i;
        while (z < n && ccc(cp[z])) z++;
        if (z - i > 1) sort_marks(cp + i, z - i, tmp);
        i = z + (z == i);
    }
}

enum { MAX_DECOMPOSED = 18 }; /* code points that one can become, in any form */

/* Normalizes one segment that depends on nothing around it; *chars: code points written. */
static int segment(fa_enc *e, const fa_norm *m, const char *s, size_t n, fa_buf *out, size_t *chars) {
    size_t k = 0;
    int last = 0, opt = UTF8PROC_STABLE | (m->compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                        (m->compat ? UTF8PROC_COMPAT : 0);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += (size_t)fa_utf8_decode(s + i, n - i, &cp);
        if (e->n_cps < (k + MAX_DECOMPOSED) * 2) {
            size_t cap = (k + MAX_DECOMPOSED) * 4;
            uint32_t *p = (uint32_t *)fa_realloc(e->cps, cap, sizeof *p);
            if (!p) return no_memory(e);
            e->cps = p;
            e->n_cps = cap;
        }
        utf8proc_ssize_t got = utf8proc_decompose_char((utf8proc_int32_t)cp, (utf8proc_int32_t *)e->cps + k,
                                                       MAX_DECOMPOSED, (utf8proc_option_t)opt, &last);
        if (got < 0 || got > MAX_DECOMPOSED) {
            e->cps[k] = cp;
            got = 1;
        }
        k += (size_t)got;
    }
    reorder(e->cps, k, e->cps + k);
    if (m->compose) {
        utf8proc_ssize_t got =
            utf8proc_normalize_utf32((utf8proc_int32_t *)e->cps, (utf8proc_ssize_t)k, (utf8proc_option_t)opt);
        if (got >= 0) k = (size_t)got;
    }
    *chars = k;
    for (size_t i = 0; i < k; i++) {
        char c[4];
        fa_buf_add(out, c, (size_t)fa_utf8_encode(e->cps[i], c));
    }
    return FFAI_OK;
}

/* Normalizers of the reference follow an older Unicode version than libutf8proc; what is newer stands by itself. */
static bool newer(uint32_t cp) {
    size_t lo = 0, hi = fa_ucd_n_newer;
    if (cp < fa_ucd_newer[0][0]) return false;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp > fa_ucd_newer[mid][1])
            lo = mid + 1;
        else if (cp < fa_ucd_newer[mid][0])
            hi = mid;
        else
            return true;
    }
    return false;
}

static bool touched(const fa_norm *m, uint32_t cp) {
    return (m->compose && !m->compat ? fa_ucd(cp) & FA_UCD_UNSTABLE : cp >= 0x80) && !newer(cp);
}

/* Normalizes s[from..end) to the end of out, and sets the end of the zero part when the old one, z, is in there: as
 * many of the characters written are of it as its own characters make by themselves. */
static int put_segment(fa_enc *e, const fa_norm *m, const char *s, size_t from, size_t end, fa_buf *out, size_t z,
                       size_t *zero) {
    size_t chars = 0, at, i, zero_chars = 0, inside = z > from && z <= end ? z - from : 0;
    if (inside) {
        at = out->len;
        if (segment(e, m, s + from, inside, out, &zero_chars)) return e->rc;
        out->len = at;
    }
    at = out->len;
    if (segment(e, m, s + from, end - from, out, &chars)) return e->rc;
    if (!inside || out->failed) return FFAI_OK;
    for (i = at; i < out->len && (zero_chars || ((unsigned char)out->data[i] & 0xC0) == 0x80); i++)
        if (((unsigned char)out->data[i] & 0xC0) != 0x80) zero_chars--;
    *zero = i;
    return FFAI_OK;
}

/* Finds the segments that the form may change: a touched character, those that follow, and the untouched one before,
 * which may take a mark. *dirty stays false, and nothing is written, when the text has none. */
static int unicode(fa_enc *e, const fa_norm *m, const char *s, size_t n, fa_buf *out, bool *dirty, size_t *zero) {
    size_t done = 0, prev = 0, at = 0, z = *zero;
    while (at < n) {
        if ((unsigned char)s[at] < 0x80) {
            uint64_t w = 0;
            while (n - at >= 8 && (memcpy(&w, s + at, 8), !(w & UINT64_C(0x8080808080808080)))) at += 8;
            while (at < n && (unsigned char)s[at] < 0x80) at++;
            prev = at - 1;
            continue;
        }
        uint32_t cp;
        size_t len = (size_t)fa_utf8_decode(s + at, n - at, &cp);
        if (!touched(m, cp)) {
            prev = newer(cp) ? at + len : at;
            at += len;
            continue;
        }
        size_t from = prev >= done ? prev : done, end = at + len;
        for (; end < n; end += len) {
            len = (size_t)fa_utf8_decode(s + end, n - end, &cp);
            if (!touched(m, cp)) break;
        }
        *dirty = true;
        if (z > done && z <= from) *zero = out->len + z - done;
        fa_buf_add(out, s + done, from - done);
        if (put_segment(e, m, s, from, end, out, z, zero)) return e->rc;
        done = prev = at = end;
    }
    if (*dirty && z > done) *zero = out->len + z - done;
    if (*dirty) fa_buf_add(out, s + done, n - done);
    return FFAI_OK;
}

/* ---- the rest ---- */

static void strip(const fa_norm *m, const char **s, size_t *n) {
    uint32_t cp;
    for (size_t k; m->left && *n; *s += k, *n -= k) {
        k = (size_t)fa_utf8_decode(*s, *n, &cp);
        if (!(fa_ucd(cp) & FA_UCD_SPACE)) break;
    }
    while (m->right && *n) {
        size_t k = 1;
        while (k < *n && ((unsigned char)(*s)[*n - k] & 0xC0) == 0x80) k++;
        fa_utf8_decode(*s + *n - k, k, &cp);
        if (!(fa_ucd(cp) & FA_UCD_SPACE)) break;
        *n -= k;
    }
}

/* One step from s to b (emptied); *dirty false: s[0..n) itself, cut where the step cuts, is the result. */
static void run_one(fa_enc *e, const fa_norm *m, const char **s, size_t *n, fa_buf *b, size_t *zero, bool *dirty) {
    size_t before = *n;
    const char *from = *s;
    switch (m->kind) {
    case FA_NORM_PREPEND:
        fa_buf_add(b, m->to, m->n_to);
        fa_buf_add(b, *s, *n);
        if (*zero) *zero += m->n_to;
        break;
    case FA_NORM_REPLACE: replace(m, *s, *n, b, zero); break;
    case FA_NORM_REPLACE_RE: replace_re(e, m, *s, *n, b, zero); break;
    case FA_NORM_UNICODE:
        *dirty = false;
        unicode(e, m, *s, *n, b, dirty, zero);
        break;
    case FA_NORM_STRIP:
        *dirty = false;
        strip(m, s, n);
        if (*s != from) *zero = *zero > (size_t)(*s - from) ? *zero - (size_t)(*s - from) : 0;
        break;
    case FA_NORM_PRECOMPILED: *dirty = fa_norm_precompiled(m, *s, before, b, zero); break;
    case FA_NORM_SPM:
        fa_spm_normalize(e->t->spm, *s, *n, *zero > 0, b);
        *zero = 0;
        break;
    default: fa_norm_chars(m, *s, *n, b, zero); break;
    }
}

int fa_norm_run(fa_enc *e, const char *s, size_t n, const char **out, size_t *n_out, size_t *zero) {
    size_t turn = 0; /* the buffer that s does not lie in */
    e->at0 = *zero > 0;
    for (size_t i = 0; i < e->t->n_norm && n; i++) {
        fa_buf *b = &e->norm[turn];
        bool dirty = true;
        b->len = 0;
        b->failed = false;
        run_one(e, &e->t->norm[i], &s, &n, b, zero, &dirty);
        if (b->failed) return no_memory(e);
        if (e->rc) return e->rc;
        if (dirty) {
            s = b->data ? b->data : "";
            n = b->len;
            turn ^= 1;
        }
    }
    *out = s;
    *n_out = n;
    return FFAI_OK;
}
