/* The WordPiece model (longest token first, from left to right; one piece that is missing makes the whole word unknown)
 * and the WordLevel model (a word is a token or unknown). */
#include "text/tok_int.h"
#include "base/alloc.h"

static void put(fa_enc *e, int32_t id) {
    if (fa_enc_room(e, 1)) e->ids[e->n++] = id;
}

static void put_unknown(fa_enc *e, int32_t unk) {
    if (unk >= 0)
        put(e, unk);
    else
        e->rc = fa_fail(e->err, FFAI_EINVAL,
                        "%s: the text has an unknown word, and model.unk_token is not in the vocabulary", e->t->what);
}

/* ---- WordPiece ---- */

int fa_wordpiece_build(fa_tok *t, const char *prefix, size_t n_prefix, size_t max_chars, int32_t unk, fa_error *err) {
    fa_wordpiece *m = &t->wp;
    size_t n = t->name.n_id, k = 0;
    t->kind = FA_MODEL_WORDPIECE;
    t->model_unk = m->unk = unk;
    m->max_chars = max_chars;
    m->prefixed = n_prefix > 0;
    fa_dat_key *key = FA_NEWN(fa_dat_key, n + 1);
    for (size_t i = 0; i < n && key; i++)
        if (t->name.span[i].off != UINT32_MAX)
            key[k++] = (fa_dat_key){t->name.pool + t->name.span[i].off, t->name.span[i].len, (int32_t)i};
    bool ok = key && fa_dat_build(&m->dat, key, k);
    fa_free(key);
    if (!ok) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the WordPiece model", t->what);
    for (size_t i = 0; i < n_prefix && (i == 0 || m->rest); i++)
        m->rest = fa_dat_step(&m->dat, m->rest, (uint8_t)prefix[i]);
    return FFAI_OK;
}

void fa_wordpiece_free(fa_wordpiece *m) { fa_dat_free(&m->dat); }

static bool too_long(const fa_wordpiece *m, const char *s, size_t n) {
    size_t chars = 0;
    if (n <= m->max_chars) return false;
    for (size_t i = 0; i < n && chars <= m->max_chars; i++) chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars > m->max_chars;
}

void fa_wordpiece_word(fa_enc *e, const char *s, size_t n) {
    const fa_wordpiece *m = &e->t->wp;
    size_t first = e->n;
    bool good = !too_long(m, s, n);
    for (size_t i = 0; i < n && good && !e->rc;) {
        int32_t id = -1;
        size_t end = i;
        uint32_t node = i ? m->rest : 0;
        if (i && m->prefixed && !node) {
            good = false;
            break;
        }
        for (size_t j = i; j < n && (node = fa_dat_step(&m->dat, node, (uint8_t)s[j])); j++) {
            if (m->dat.unit[node].id < 0) continue;
            id = m->dat.unit[node].id;
            end = j + 1;
        }
        good = id >= 0;
        if (good) put(e, id);
        i = end;
    }
    if (good || e->rc) return;
    e->n = first;
    put_unknown(e, m->unk);
}

/* ---- WordLevel ---- */

int fa_wordlevel_build(fa_tok *t, int32_t unk, fa_error *err) {
    (void)err;
    t->kind = FA_MODEL_WORDLEVEL;
    t->model_unk = unk;
    return FFAI_OK;
}

void fa_wordlevel_word(fa_enc *e, const char *s, size_t n) {
    int32_t id = fa_strtab_find(&e->t->name, s, n);
    if (id >= 0)
        put(e, id);
    else
        put_unknown(e, e->t->model_unk);
}
