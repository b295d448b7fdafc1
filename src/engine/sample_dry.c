/* DRY, "don't repeat yourself" (p-e-w; text-generation-webui, KoboldCpp, llama.cpp): a token that would lengthen a
 * repetition of the sequence's end gets multiplier * base ^ (length - allowed_length) off its logit. Repetitions do not
 * reach across breakers.
 *
 * A breaker is a string; tokens that hold it whole break by themselves, tokens that end in its beginning do when the
 * tokens of the rest follow. Which of the two a token is, is found when it first stands in the window. */
#include "engine/sample_int.h"
#include "base/alloc.h"

#include <string.h>

enum { MAX_BREAKERS = 64, MAX_BREAKER = 40, MAX_TAIL = 20 };
enum { UNKNOWN, PLAIN, BREAKER, HEAD };

typedef struct breaker {
    char *text;
    size_t len;
    int32_t *tail[MAX_BREAKER]; /* [i]: tokens of text + i, 1 <= i < len */
    size_t n_tail[MAX_BREAKER];
} breaker;

struct fa_dry {
    float multiplier, base;
    int64_t allowed, last;
    int64_t vocab;
    const fa_tok *tok;
    breaker *b;
    size_t n_b;
    uint8_t *kind;    /* [vocab] */
    int32_t *longest; /* [vocab] repetition that the token would lengthen; 0 outside of fa_dry_apply */
    fa_buf text;
};

/* ---- making ---- */

static int add_breaker(fa_dry *d, const char *text, fa_error *err) {
    size_t len = strlen(text);
    if (!len || len > MAX_BREAKER)
        return fa_fail(err, FFAI_EINVAL, "dry-breaker: \"%.60s\" has %zu bytes, 1 to %d are possible", text, len,
                       MAX_BREAKER);
    breaker *b = &d->b[d->n_b++];
    b->len = len;
    if (!(b->text = fa_strndup(text, len))) return fa_fail(err, FFAI_ENOMEM, "no memory for DRY's breakers");
    for (size_t i = 1; i < len; i++) {
        int rc = fa_tok_encode(d->tok, text + i, len - i, FA_TOK_NO_PARSE_SPECIAL, &b->tail[i], &b->n_tail[i], err);
        if (rc) return rc;
        if (b->n_tail[i] > MAX_TAIL) b->n_tail[i] = MAX_TAIL;
    }
    return 0;
}

static int add_breakers(fa_dry *d, const ffai_sampling *s, fa_error *err) {
    static const char *const usual[] = {"\n", ":", "\"", "*"};
    const char *const *text = s->dry_breakers ? s->dry_breakers : usual;
    size_t n = s->dry_breakers ? s->n_dry_breaker : sizeof usual / sizeof usual[0];
    if (n > MAX_BREAKERS) return fa_fail(err, FFAI_ELIMIT, "dry-breaker: %zu given, at most %d", n, MAX_BREAKERS);
    if (!d->tok && s->dry_breakers && n)
        return fa_fail(err, FFAI_EINVAL, "dry-breaker: the model has no tokenizer, so there is no text to break at");
    if (!d->tok || !n) return 0;
    if (!(d->b = FA_NEWN(breaker, n))) return fa_fail(err, FFAI_ENOMEM, "no memory for DRY's breakers");
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) rc = add_breaker(d, text[i], err);
    return rc;
}

int fa_dry_new(fa_dry **out, const ffai_sampling *s, const fa_sampler_env *env, fa_error *err) {
    *out = NULL;
    if (!(s->dry_multiplier > 0)) return 0;
    fa_dry *d = FA_NEW(fa_dry);
    if (!d) return fa_fail(err, FFAI_ENOMEM, "no memory for DRY");
    d->multiplier = s->dry_multiplier;
    d->base = s->dry_base > 0 ? s->dry_base : 1.75f;
    d->allowed = s->dry_allowed_length > 0 ? s->dry_allowed_length : 2;
    d->last = s->dry_last;
    d->vocab = env->vocab;
    d->tok = env->tok;
    d->kind = FA_NEWN(uint8_t, (size_t)env->vocab);
    d->longest = FA_NEWN(int32_t, (size_t)env->vocab);
    int rc = d->kind && d->longest ? add_breakers(d, s, err) : fa_fail(err, FFAI_ENOMEM, "no memory for DRY");
    if (rc) {
        fa_dry_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

void fa_dry_free(fa_dry *d) {
    if (!d) return;
    for (size_t i = 0; i < d->n_b; i++) {
        fa_free(d->b[i].text);
        for (size_t j = 0; j < MAX_BREAKER; j++) fa_free(d->b[i].tail[j]);
    }
    fa_free(d->b);
    fa_free(d->kind);
    fa_free(d->longest);
    fa_buf_free(&d->text);
    fa_free(d);
}

/* ---- breakers ---- */

/* The text of one token to d->text; false: no memory. A token that has none is plain. */
static bool token_text(fa_dry *d, int32_t id) {
    fa_error err = {0};
    if (d->text.failed) fa_buf_free(&d->text); /* of an earlier try */
    d->text.len = 0;
    return fa_tok_decode(d->tok, &id, 1, false, &d->text, &err) != FFAI_ENOMEM;
}

static bool holds(const char *s, size_t n, const breaker *b) {
    for (size_t i = 0; i + b->len <= n; i++)
        if (!memcmp(s + i, b->text, b->len)) return true;
    return false;
}

/* What a token is to the breakers; < 0: no memory. */
static int kind_of(fa_dry *d, int32_t id) {
    if (!d->n_b || id < 0 || id >= d->vocab) return PLAIN;
    if (d->kind[id] != UNKNOWN) return d->kind[id];
    if (!token_text(d, id)) return -1;
    int kind = PLAIN;
    for (size_t j = 0; j < d->n_b && kind != BREAKER; j++) {
        const breaker *b = &d->b[j];
        if (holds(d->text.data, d->text.len, b)) kind = BREAKER;
        for (size_t i = 1; kind == PLAIN && i < b->len && i <= d->text.len; i++)
            if (!memcmp(d->text.data + d->text.len - i, b->text, i)) kind = HEAD;
    }
    d->kind[id] = (uint8_t)kind;
    return kind;
}

/* The longest tail of a head at `at` that follows there and ends before end; -1: none. -2: no memory. */
static int64_t tail_after(fa_dry *d, const int32_t *at, const int32_t *end) {
    int64_t longest = -1;
    if (!token_text(d, *at)) return -2;
    for (size_t j = 0; j < d->n_b; j++) {
        const breaker *b = &d->b[j];
        for (size_t i = 1; i < b->len && i <= d->text.len; i++) {
            int64_t n = (int64_t)b->n_tail[i];
            if (n > end - at - 1 || n <= longest || memcmp(d->text.data + d->text.len - i, b->text, i)) continue;
            if (!memcmp(at + 1, b->tail[i], (size_t)n * sizeof *at)) longest = n;
        }
    }
    return longest;
}

/* How many tokens at the end of w [n] stand behind the last breaker; < 0: no memory. */
static int64_t since_breaker(fa_dry *d, const int32_t *w, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        int kind = kind_of(d, w[n - 1 - i]);
        if (kind < 0) return -1;
        if (kind == BREAKER) return i;
        if (kind != HEAD) continue;
        int64_t tail = tail_after(d, &w[n - 1 - i], w + n);
        if (tail == -2) return -1;
        if (tail >= 0) return i - tail;
    }
    return n;
}

/* ---- the penalty ---- */

static float penalty(const fa_dry *d, int64_t length) {
    double most = d->base > 1.000001f ? 88.7228391 / log((double)d->base) : INFINITY; /* base ^ most is a float yet */
    double e = fmin((double)(length - d->allowed), floor(most));
    return (float)fmin(3e38, (double)d->multiplier * pow((double)d->base, e));
}

/* Takes the penalties off: in a row each token once, in a list by its entries. */
static int subtract(fa_dry *d, fa_pick *p, const int32_t *w, int64_t n, const int32_t *z, int64_t limit) {
    if (p->dense) fa_pick_bake(p);
    for (int64_t k = 1; k < n; k++) {
        int32_t next = w[n - k];
        int64_t len = z[k] < limit ? z[k] : limit;
        if (len >= d->allowed && next >= 0 && next < d->vocab && d->longest[next] < len)
            d->longest[next] = (int32_t)len;
    }
    int rc = 0;
    for (int64_t i = 0; !p->dense && i < p->n && !rc; i++) {
        int64_t len = d->longest[p->id[i]];
        int kind = len ? kind_of(d, p->id[i]) : PLAIN;
        rc = kind < 0 ? FFAI_ENOMEM : 0;
        if (len && kind != BREAKER) p->l[i] -= penalty(d, len);
    }
    for (int64_t k = 1; k < n; k++) { /* and leaves `longest` clean */
        int32_t next = w[n - k];
        if (next < 0 || next >= d->vocab || !d->longest[next]) continue;
        int kind = p->dense ? kind_of(d, next) : PLAIN;
        if (kind < 0) rc = FFAI_ENOMEM;
        if (p->dense && kind != BREAKER) p->x[next] -= penalty(d, d->longest[next]);
        d->longest[next] = 0;
    }
    p->have_top = false;
    return rc;
}

int fa_dry_apply(fa_dry *d, fa_pick *p, const int32_t *ids, int64_t n, int32_t *z) {
    if (!d) return 0;
    int64_t m = d->last > 0 && d->last < n ? d->last : n;
    const int32_t *w = ids + n - m;
    if (m <= d->allowed) return 0;
    int64_t limit = since_breaker(d, w, m);
    if (limit < 0) return FFAI_ENOMEM;
    if (limit < d->allowed) return 0;
    fa_suffix_lengths(w, m, z);
    return subtract(d, p, w, m, z, limit);
}
