/* Two models that only GGUF files have: RWKV's (the longest token of bytes, from left to right) and PLaMo 2's (of all
 * ways to write the text the one with the smallest cost, found from right to left). */
#include "text/tok_int.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <math.h>
#include <string.h>

/* ---- RWKV ---- */

int fa_rwkv_build(fa_tok *t, int32_t unk, fa_error *err) {
    size_t n = t->raw.n_id, k = 0;
    fa_dat_key *key = FA_NEWN(fa_dat_key, n + 1);
    t->kind = FA_MODEL_RWKV;
    t->model_unk = unk;
    for (size_t i = 0; i < n && key; i++)
        if (t->raw.span[i].off != UINT32_MAX)
            key[k++] = (fa_dat_key){t->raw.pool + t->raw.span[i].off, t->raw.span[i].len, (int32_t)i};
    bool ok = key && fa_dat_build(&t->wp.dat, key, k);
    fa_free(key);
    return ok ? FFAI_OK : fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

void fa_rwkv_word(fa_enc *e, const char *s, size_t n) {
    const fa_dat *d = &e->t->wp.dat;
    for (size_t i = 0; i < n;) {
        int32_t id = e->t->model_unk;
        size_t end = i + 1;
        uint32_t node = 0;
        for (size_t j = i; j < n && (node = fa_dat_step(d, node, (uint8_t)s[j])); j++) {
            if (d->unit[node].id < 0) continue;
            id = d->unit[node].id;
            end = j + 1;
        }
        if (id < 0) {
            e->rc = fa_fail(e->err, FFAI_EINVAL, "%s: the text has a byte without a token", e->t->what);
            return;
        }
        if (!fa_enc_room(e, 1)) return;
        e->ids[e->n++] = id;
        i = end;
    }
}

/* ---- PLaMo 2 ---- */

enum { UNKNOWN_COST = 10000000, INVALID_SCORE = -20000000 };

typedef struct place { /* the cheapest way from a place to the end */
    int64_t cost;
    uint32_t len; /* of its first token */
    int32_t id;   /* -1: the bytes of one character */
} place;

int fa_plamo_build(fa_tok *t, const double *score, const uint8_t *type, fa_error *err) {
    size_t n = t->name.n_id, k = 0;
    fa_dat_key *key = FA_NEWN(fa_dat_key, n + 1);
    t->kind = FA_MODEL_PLAMO;
    t->uni.score = FA_NEWN(double, n + 1);
    for (size_t i = 0; i < n && key && t->uni.score; i++) {
        double s = round(score[i] * 1e4);
        if (t->name.span[i].off == UINT32_MAX || type[i] == FA_PIECE_BYTE || !(s > INVALID_SCORE) || s > 1e9) continue;
        t->uni.score[i] = s;
        key[k++] = (fa_dat_key){t->name.pool + t->name.span[i].off, t->name.span[i].len, (int32_t)i};
    }
    bool ok = key && t->uni.score && fa_dat_build(&t->uni.dat, key, k);
    fa_free(key);
    return ok ? FFAI_OK : fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

static size_t char_len(const char *s, size_t n) {
    size_t k = fa_utf8_char_len(s);
    return k < n ? k : n;
}

/* Of equal costs the longest token stays; bytes come last. */
static void find_way(const fa_unigram *m, const char *s, size_t n, place *at) {
    at[n] = (place){0};
    for (size_t i = n; i-- > 0;) {
        if (((unsigned char)s[i] & 0xC0) == 0x80) continue;
        uint32_t node = 0;
        at[i] = (place){INT64_MAX, 0, -1};
        for (size_t j = i; j < n && (node = fa_dat_step(&m->dat, node, (uint8_t)s[j])); j++) {
            int32_t id = m->dat.unit[node].id;
            if (id < 0) continue;
            int64_t cost = at[j + 1].cost - (int64_t)m->score[id];
            if (cost <= at[i].cost) at[i] = (place){cost, (uint32_t)(j + 1 - i), id};
        }
        size_t len = char_len(s + i, n - i);
        if (at[i + len].cost + UNKNOWN_COST < at[i].cost)
            at[i] = (place){at[i + len].cost + UNKNOWN_COST, (uint32_t)len, -1};
    }
}

void fa_plamo_word(fa_enc *e, const char *s, size_t n) {
    const fa_unigram *m = &e->t->uni;
    e->path.len = 0;
    if (n >= INT32_MAX || !fa_buf_reserve(&e->path, (n + 1) * sizeof(place))) {
        e->path.failed = false;
        e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for a word of %zu bytes", n);
        return;
    }
    place *at = (place *)(void *)e->path.data;
    find_way(m, s, n, at);
    if (!fa_enc_room(e, n)) return;
    for (size_t i = 0; i < n; i += at[i].len) {
        if (at[i].id >= 0) e->ids[e->n++] = at[i].id;
        for (size_t k = 0; at[i].id < 0 && k < at[i].len; k++) e->ids[e->n++] = e->t->bpe.byte_token[(uint8_t)s[i + k]];
    }
}
