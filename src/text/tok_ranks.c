/* Vocabularies of byte strings, as tiktoken has them: each token is bytes with a rank. Two neighbours merge when their
 * bytes together are a token, the lowest rank first; a word that is a token is that token. */
#include "text/tok_files.h"
#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

static int no_memory(const fa_tok *t, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

static int digit64(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool fa_base64(const char *s, size_t n, fa_buf *b) {
    b->len = 0;
    if (n % 4) return false;
    for (size_t i = 0; i < n; i += 4) {
        int v[4], k = 4;
        bool last = i + 4 == n;
        for (int j = 0; j < 4; j++) v[j] = digit64(s[i + j]);
        if (last && s[i + 3] == '=') k = s[i + 2] == '=' ? 2 : 3;
        for (int j = 0; j < k; j++)
            if (v[j] < 0) return false;
        uint32_t w = (uint32_t)v[0] << 18 | (uint32_t)v[1] << 12;
        if (k > 2) w |= (uint32_t)v[2] << 6;
        if (k > 3) w |= (uint32_t)v[3];
        char out[3] = {(char)(w >> 16), (char)(w >> 8), (char)w};
        fa_buf_add(b, out, (size_t)k - 1);
    }
    return !b->failed;
}

/* Tokens are named in the byte-level alphabet, as in a converted tokenizer.json. */
static bool spell(fa_tok *t, uint32_t id, const fa_buf *bytes, fa_buf *scratch) {
    scratch->len = 0;
    for (size_t i = 0; i < bytes->len; i++) {
        char c[4];
        fa_buf_add(scratch, c, (size_t)fa_char_of_byte((unsigned char)bytes->data[i], c));
    }
    return !scratch->failed && fa_strtab_set(&t->name, id, scratch->data ? scratch->data : "", scratch->len) &&
           fa_strtab_set(&t->raw, id, bytes->data ? bytes->data : "", bytes->len);
}

int fa_tok_put_bytes(fa_tok *t, uint32_t id, const fa_buf *bytes, const char *where, fa_buf *scratch, fa_error *err) {
    if (fa_strtab_has(&t->raw, id))
        return fa_fail(err, FFAI_EFORMAT, "%s: %s: rank %u is there twice", t->what, where, (unsigned)id);
    return spell(t, id, bytes, scratch) ? FFAI_OK : no_memory(t, err);
}

static int check_vocabulary(const fa_tok *t, fa_error *err) {
    for (size_t i = 0; i < t->raw.n_id; i++) {
        if (t->raw.span[i].off == UINT32_MAX) continue;
        int32_t id = fa_strtab_find(&t->raw, t->raw.pool + t->raw.span[i].off, t->raw.span[i].len);
        if (id != (int32_t)i)
            return fa_fail(err, FFAI_EFORMAT, "%s: tokens %zu and %d are the same bytes", t->what, i, (int)id);
    }
    for (unsigned c = 0; c < 256; c++) {
        char s[1] = {(char)c};
        if (fa_strtab_find(&t->raw, s, 1) < 0)
            return fa_fail(err, FFAI_EFORMAT, "%s: no token is the single byte 0x%02X", t->what, c);
    }
    return FFAI_OK;
}

int fa_tok_ranks_done(fa_tok *t, fa_error *err) {
    fa_bpe *m = &t->bpe;
    if (!fa_strtab_index(&t->raw, NULL) || !fa_strtab_index(&t->name, NULL)) return no_memory(t, err);
    int rc = check_vocabulary(t, err);
    if (rc) return rc;
    m->by_score = m->byte_level = m->ignore_merges = true;
    m->word = &t->raw;
    m->id_rank = FA_NEWN(uint32_t, t->raw.n_id);
    if (!m->id_rank) return no_memory(t, err);
    for (size_t i = 0; i < t->raw.n_id; i++)
        m->id_rank[i] = t->raw.span[i].off == UINT32_MAX ? UINT32_MAX : (uint32_t)i;
    m->n_rank = (uint32_t)t->raw.n_id;
    return fa_tok_put_decoder(t, FA_DEC_BYTE_LEVEL, NULL, 0, NULL, 0, 0, 0, err);
}

int fa_tok_put_words(fa_tok *t, const char *pattern, size_t n, fa_error *err) {
    bool known = fa_scan_find(pattern, n) != NULL; /* these match everything */
    return fa_tok_put_pattern(t, pattern, n, known ? FA_ISOLATED : FA_REMOVED, !known, err);
}

int fa_tok_put_special(fa_tok *t, const char *s, size_t n, int64_t id, fa_error *err) {
    fa_added a = {.text = (char *)s, .len = n, .id = (int32_t)id, .special = true};
    if (id < 0 || id > (int64_t)t->name.n_id + FA_TOK_ID_SLACK)
        return fa_fail(err, FFAI_EFORMAT, "%s: special token \"%.60s\" has the id %lld", t->what, s, (long long)id);
    if (fa_strtab_has(&t->raw, id))
        return fa_fail(err, FFAI_EFORMAT, "%s: special token \"%.60s\" has the id %lld of another token", t->what, s,
                       (long long)id);
    return fa_tok_add(t, &a, err);
}
