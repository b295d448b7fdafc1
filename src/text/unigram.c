/* The Unigram model: of all ways to write a word as pieces, the one with the highest sum of scores. One pass from left
 * to right keeps the best way to each place, so the time is linear in the text (times the longest piece). Sums, ties
 * and the treatment of unknown text are the reference's: additions are done in the same order and precision. */
#include "text/tok_int.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define UNK_PENALTY 10.0

typedef struct place { /* the best way to a place of the word */
    double score;
    int32_t id;      /* of its last piece */
    uint32_t start1; /* where that piece begins + 1; 0 = no way leads here. Later: the next place of the best way */
} place;

/* ---- building ---- */

static bool matched(const fa_unigram_opts *o, size_t i) {
    return !o->type || o->type[i] == FA_PIECE_NORMAL || o->type[i] == FA_PIECE_USER_DEFINED;
}

static void set_scores(fa_unigram *m, const fa_tok *t, const fa_unigram_opts *o) {
    double lo = INFINITY;
    for (size_t i = 0; i < t->name.n_id; i++) {
        if (t->name.span[i].off == UINT32_MAX || (o->type && o->type[i] != FA_PIECE_NORMAL)) continue;
        if (o->score[i] < lo) lo = o->score[i];
    }
    if (o->type && lo > DBL_MAX) lo = 0; /* no normal piece */
    m->unk_score = o->spm ? (double)((float)lo - (float)UNK_PENALTY) : lo - UNK_PENALTY;
    for (size_t i = 0; i < t->name.n_id; i++)
        m->score[i] = o->spm && o->type && o->type[i] == FA_PIECE_USER_DEFINED
                          ? (double)(float)(0.1 * ((double)t->name.span[i].len - 1))
                          : o->score[i];
}

static void find_bytes(fa_unigram *m, const fa_tok *t) {
    for (unsigned c = 0; c < 256; c++) {
        char s[8];
        snprintf(s, sizeof s, "<0x%02X>", c);
        m->byte_token[c] = fa_strtab_find(&t->name, s, 6);
    }
}

int fa_unigram_build(fa_tok *t, const fa_unigram_opts *o, fa_error *err) {
    fa_unigram *m = &t->uni;
    size_t n = t->name.n_id, k = 0;
    t->kind = FA_MODEL_UNIGRAM;
    t->model_unk = m->unk = o->unk;
    m->byte_fallback = o->byte_fallback;
    m->spm = o->spm;
    m->score = FA_NEWN(double, n + 1);
    fa_dat_key *key = FA_NEWN(fa_dat_key, n + 1);
    if (m->score && key) {
        set_scores(m, t, o);
        for (size_t i = 0; i < n; i++)
            if (t->name.span[i].off != UINT32_MAX && matched(o, i))
                key[k++] = (fa_dat_key){t->name.pool + t->name.span[i].off, t->name.span[i].len, (int32_t)i};
        find_bytes(m, t);
    }
    bool ok = m->score && key && fa_dat_build(&m->dat, key, k);
    fa_free(key);
    return ok ? FFAI_OK : fa_fail(err, FFAI_ENOMEM, "%s: no memory for the Unigram model", t->what);
}

void fa_unigram_free(fa_unigram *m) {
    fa_dat_free(&m->dat);
    fa_free(m->score);
    m->score = NULL;
}

/* ---- encoding ---- */

static inline void offer(const fa_unigram *m, place *to, double sum, size_t start, int32_t id) {
    if (m->spm) sum = (double)(float)sum;
    if (to->start1 && !(sum > to->score)) return;
    to->score = sum;
    to->start1 = (uint32_t)start + 1;
    to->id = id;
}

/* SentencePiece keeps its sums small: one that has left +-100,000 becomes 0, and those ahead of it go along. */
static void rebase(place *at, size_t from, size_t to) {
    float offset = (float)at[from].score;
    for (size_t i = from; i <= to; i++)
        if (i == from || at[i].start1) at[i].score = (double)((float)at[i].score - offset);
}

/* Finds the best way to every place. False: an unknown character, and no unknown token. */
static bool forward(const fa_unigram *m, const char *s, size_t n, place *at) {
    size_t len, reach = 0;
    for (size_t i = 0; i < n; i += len) {
        if (m->spm && (at[i].score < -1e5 || at[i].score > 1e5)) rebase(at, i, reach);
        double here = at[i].score;
        uint32_t node = 0;
        bool single = false;
        len = fa_utf8_char_len(s + i);
        if (len > n - i) len = n - i;
        for (size_t j = i; j < n && (node = fa_dat_step(&m->dat, node, (uint8_t)s[j])); j++) {
            int32_t id = m->dat.unit[node].id;
            if (id < 0) continue;
            if (j + 1 > reach) reach = j + 1;
            offer(m, &at[j + 1], m->score[id] + here, i, id);
            single |= j + 1 - i == len;
        }
        if (single) continue;
        if (i + len > reach) reach = i + len;
        double sum = m->unk_score + here;
        if (m->spm) sum = (double)(float)sum;
        if (m->unk < 0 && (!at[i + len].start1 || sum > at[i + len].score)) return false;
        offer(m, &at[i + len], sum, i, m->unk);
    }
    return true;
}

static void put(fa_enc *e, int32_t id) {
    if (fa_enc_room(e, 1)) e->ids[e->n++] = id;
}

/* A run of unknown text. The reference looks it up again as a whole, and so may find a token in it. */
static void put_unknown(fa_enc *e, const char *s, size_t n) {
    const fa_unigram *m = &e->t->uni;
    int32_t id = m->spm ? -1 : fa_strtab_find(&e->t->name, s, n);
    bool bytes = id < 0 && m->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++) bytes = m->byte_token[(uint8_t)s[i]] >= 0;
    if (!bytes) {
        put(e, id < 0 ? m->unk : id);
        return;
    }
    if (!fa_enc_room(e, n)) return;
    for (size_t i = 0; i < n; i++) e->ids[e->n++] = m->byte_token[(uint8_t)s[i]];
}

static void put_path(fa_enc *e, const char *s, size_t n, place *at) {
    const fa_unigram *m = &e->t->uni;
    for (size_t i = n; i > 0;) { /* turn the links around */
        size_t from = at[i].start1 - 1;
        at[from].score = (double)i;
        i = from;
    }
    for (size_t i = 0; i < n && !e->rc;) {
        size_t to = (size_t)at[i].score;
        if (m->unk < 0 || at[to].id != m->unk) {
            put(e, at[to].id);
        } else {
            while (to < n && at[(size_t)at[to].score].id == m->unk) to = (size_t)at[to].score;
            put_unknown(e, s + i, to - i);
        }
        i = to;
    }
}

void fa_unigram_word(fa_enc *e, const char *s, size_t n) {
    e->path.len = 0;
    if (n >= INT32_MAX || !fa_buf_reserve(&e->path, (n + 1) * sizeof(place))) {
        e->path.failed = false;
        e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for a word of %zu bytes", n);
        return;
    }
    place *at = (place *)(void *)e->path.data;
    memset(at, 0, (n + 1) * sizeof *at);
    if (forward(&e->t->uni, s, n, at))
        put_path(e, s, n, at);
    else
        e->rc = fa_fail(e->err, FFAI_EINVAL,
                        "%s: the text has a character without a token, and model.unk_id is not set", e->t->what);
}
