/* SentencePiece's normalizer and decoder. The normalizer goes from left to right: a user-defined piece stays as it is,
 * else the longest rule of the charsmap is applied, else one character is taken over; white space is escaped, and, when
 * the model says so, runs of it are made one and cut off at both ends. */
#include "text/spm.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

#define WORD_SIGN   "\xE2\x96\x81"
#define REPLACEMENT "\xEF\xBF\xBD"

void fa_spm_free(fa_spm *m) {
    if (!m) return;
    fa_charsmap_free(m->norm.map);
    fa_charsmap_free(m->denorm.map);
    fa_trie_free(&m->user);
    fa_free(m->unk_surface);
    fa_free(m->type);
    fa_free(m);
}

/* ---- normalizing ---- */

/* Longest user-defined piece that s begins with, 0 for none. */
static size_t match_user(const fa_trie *t, const char *s, const char *end) {
    size_t found = 0;
    uint32_t at = t->n ? t->root[(uint8_t)*s] : 0;
    for (const char *p = s + 1; at; p++) {
        if (t->node[at].added1) found = (size_t)(p - s);
        if (p == end) break;
        for (at = t->node[at].child; at && t->node[at].byte != (uint8_t)*p;) at = t->node[at].sibling;
    }
    return found;
}

/* The next piece of s, normalized, in *to; returns how many bytes of s it stands for. */
static size_t next_prefix(const fa_spm *m, const fa_spm_rules *r, const char *s, const char *end, const char **to,
                          size_t *n_to) {
    uint32_t cp;
    size_t n = match_user(&m->user, s, end);
    if (!n && r->map && (n = fa_charsmap_longest(r->map, s, (size_t)(end - s), to, n_to))) return n;
    if (!n) n = (size_t)fa_utf8_decode(s, (size_t)(end - s), &cp);
    *to = s;
    return *n_to = n;
}

static void put_space(const fa_spm_rules *r, fa_buf *out) {
    if (r->escape)
        fa_buf_add(out, WORD_SIGN, 3);
    else
        fa_buf_add(out, " ", 1);
}

static void put_escaped(const fa_spm_rules *r, const char *s, size_t n, fa_buf *out) {
    const char *end = s + n;
    while (s < end) {
        const char *hit = r->escape ? (const char *)memchr(s, ' ', (size_t)(end - s)) : NULL;
        if (!hit) hit = end;
        if (hit > s) fa_buf_add(out, s, (size_t)(hit - s));
        if (hit < end) fa_buf_add(out, WORD_SIGN, 3);
        s = hit + (hit < end);
    }
}

static void cut_spaces(const fa_spm_rules *r, fa_buf *out, size_t from) {
    const char *sign = r->escape ? WORD_SIGN : " ";
    size_t n = strlen(sign);
    while (out->len >= from + n && memcmp(out->data + out->len - n, sign, n) == 0) out->len -= n;
}

static void normalize(const fa_spm *m, const fa_spm_rules *r, const char *s, size_t n, bool prefix, fa_buf *out) {
    const char *end = s + n, *to;
    size_t from = out->len, n_to, k;
    for (; r->remove_extra && s < end; s += k) {
        k = next_prefix(m, r, s, end, &to, &n_to);
        if (n_to != 1 || *to != ' ') break;
    }
    if (s == end) return;
    if (prefix && r->dummy_prefix && !m->suffix) put_space(r, out);
    bool space = r->remove_extra;
    bool plain = !r->map && !m->user.n && !r->remove_extra; /* nothing but escaping */
    if (plain) put_escaped(r, s, n, out);
    for (; !plain && s < end && !out->failed; s += k) {
        k = next_prefix(m, r, s, end, &to, &n_to);
        while (space && n_to && *to == ' ') to++, n_to--;
        if (n_to) {
            put_escaped(r, to, n_to, out);
            space = to[n_to - 1] == ' ';
        }
        space = space && r->remove_extra;
    }
    if (r->remove_extra) cut_spaces(r, out, from);
    if (prefix && r->dummy_prefix && m->suffix) put_space(r, out);
}

void fa_spm_normalize(const fa_spm *m, const char *s, size_t n, bool first, fa_buf *out) {
    normalize(m, &m->norm, s, n, first || !m->only_first, out);
}

/* ---- decoding ---- */

void fa_spm_dec_free(fa_spm_dec *d) {
    fa_buf_free(&d->bytes);
    fa_buf_free(&d->text);
}

bool fa_spm_dec_failed(const fa_spm_dec *d) { return d->bytes.failed || d->text.failed; }

static void put(const fa_tok *t, fa_spm_dec *d, const char *s, size_t n, fa_buf *out) {
    if (!n) return;
    d->any = true;
    fa_buf_add(t->spm->denorm.map ? &d->text : out, s, n);
}

/* Characters of the waiting bytes; a byte that is in none is a U+FFFD. all: no more will come. */
static void put_bytes(const fa_tok *t, fa_spm_dec *d, bool all, fa_buf *out) {
    fa_buf *b = &d->bytes;
    size_t i = 0, wait = all ? 0 : fa_utf8_partial_tail(b->data, b->len);
    while (i < b->len - wait) {
        uint32_t cp;
        size_t n = (size_t)fa_utf8_decode(b->data + i, b->len - i, &cp);
        bool good = cp != 0xFFFD || (n == 3 && memcmp(b->data + i, REPLACEMENT, 3) == 0);
        put(t, d, good ? b->data + i : REPLACEMENT, good ? n : 3, out);
        i += good ? n : 1;
    }
    if (i) memmove(b->data, b->data + i, b->len - i);
    b->len -= i;
}

static int byte_of(const char *p) {
    int v = 0;
    for (int i = 3; i < 5; i++) v = v * 16 + (p[i] <= '9' ? p[i] - '0' : p[i] - 'A' + 10);
    return v & 255;
}

/* A piece as text: word signs are spaces; the one of the dummy prefix is not. */
static void put_piece(const fa_tok *t, fa_spm_dec *d, const char *s, size_t n, fa_buf *out) {
    const fa_spm_rules *r = &t->spm->norm;
    bool sign = n >= 3 && memcmp(s, WORD_SIGN, 3) == 0;
    d->seen = false;
    if (!d->any && (r->dummy_prefix || r->remove_extra) && sign) {
        s += 3;
        n -= 3;
        d->seen = !r->remove_extra;
    }
    const char *end = s + n;
    for (const char *p = s; p < end; p++) {
        p = (const char *)memchr(p, WORD_SIGN[0], (size_t)(end - p));
        if (!p) break;
        if (end - p < 3 || memcmp(p, WORD_SIGN, 3) != 0) continue;
        put(t, d, s, (size_t)(p - s), out);
        put(t, d, " ", 1, out);
        s = p + 3;
        p += 2;
    }
    put(t, d, s, (size_t)(end - s), out);
}

void fa_spm_dec_push(const fa_tok *t, fa_spm_dec *d, int32_t id, const char *piece, size_t n, bool skip, fa_buf *out) {
    const fa_spm *m = t->spm;
    int type = (size_t)id < m->n_type ? m->type[id] : 0; /* 0: added beside the model */
    if (type == FA_PIECE_BYTE) {
        char c = (char)byte_of(piece);
        fa_buf_add(&d->bytes, &c, 1);
        if (!d->bytes.failed) put_bytes(t, d, false, out);
        return;
    }
    put_bytes(t, d, true, out);
    if (d->seen) d->any = true;
    if (skip && t->special[id]) return;
    if (type == FA_PIECE_CONTROL || type == FA_PIECE_UNKNOWN || type == 0) {
        d->seen = false;
        if (m->shows_special || type == 0)
            put(t, d, piece, n, out);
        else if (type == FA_PIECE_UNKNOWN)
            put(t, d, m->unk_surface, strlen(m->unk_surface), out);
        return;
    }
    put_piece(t, d, piece, n, out);
}

void fa_spm_dec_flush(const fa_tok *t, fa_spm_dec *d, fa_buf *out) {
    put_bytes(t, d, true, out);
    if (t->spm->denorm.map && !d->text.failed) {
        static const fa_spm plain = {0}; /* user-defined pieces mean nothing here */
        if (d->text.len) normalize(&plain, &t->spm->denorm, d->text.data, d->text.len, true, out);
        d->text.len = 0;
    }
    d->any = d->seen = false;
    d->bytes.len = 0;
}
