#define _GNU_SOURCE
/* The bytes of single tokens: what a token adds to a text in the middle of it, also when that is part of a character.
 * The decoder steps are applied to the token alone; those that look at its neighbours cannot be. */
#include "text/tok_steps.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

bool fa_tok_eats_space(const fa_tok *t) {
    if (!t->has_decoder) return true; /* tokens are joined by a space, and there is none in front */
    for (size_t k = 0; k < t->n_dec; k++) {
        const fa_dec *d = &t->dec[k];
        if (d->kind == FA_DEC_METASPACE && d->start) return true;
        if (d->kind == FA_DEC_STRIP && d->joined && d->start && d->n_from == 1 && d->from[0] == ' ') return true;
    }
    return false;
}

bool fa_tok_has_bytes(const fa_tok *t) {
    for (size_t k = 0; k < t->n_dec; k++) {
        const fa_dec *d = &t->dec[k];
        if (d->kind != FA_DEC_BYTE_LEVEL && d->kind != FA_DEC_BYTE_FALLBACK && d->kind != FA_DEC_FUSE &&
            d->kind != FA_DEC_STRIP && d->kind != FA_DEC_REPLACE && d->kind != FA_DEC_METASPACE)
            return false;
    }
    return true;
}

/* b[from..) with every `what` replaced. */
static void replace(fa_buf *b, size_t from, const char *what, size_t n, const char *by, size_t n_by) {
    size_t w = from, len = b->len;
    if (!n || len - from < n || !memmem(b->data + from, len - from, what, n)) return;
    if (n_by <= n) { /* in place */
        for (size_t i = from; i < len;) {
            if (len - i >= n && memcmp(b->data + i, what, n) == 0) {
                memcpy(b->data + w, by, n_by);
                w += n_by;
                i += n;
            } else {
                b->data[w++] = b->data[i++];
            }
        }
        b->len = w;
        return;
    }
    char *old = fa_strndup(b->data + from, len - from);
    if (!old) {
        b->failed = true;
        return;
    }
    b->len = from;
    for (size_t i = 0; i < len - from;) {
        bool hit = len - from - i >= n && memcmp(old + i, what, n) == 0;
        fa_buf_add(b, hit ? by : old + i, hit ? n_by : 1);
        i += hit ? n : 1;
    }
    fa_free(old);
}

static void byte_level(fa_buf *b, size_t from) {
    size_t w = from;
    for (size_t i = from; i < b->len;) {
        uint32_t cp;
        i += (size_t)fa_utf8_decode(b->data + i, b->len - i, &cp);
        if (fa_byte_of_char(cp) < 0) return; /* stands for its own bytes */
    }
    for (size_t i = from; i < b->len;) { /* no character is shorter than the byte that it stands for */
        uint32_t cp;
        i += (size_t)fa_utf8_decode(b->data + i, b->len - i, &cp);
        b->data[w++] = (char)fa_byte_of_char(cp);
    }
    b->len = w;
}

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static bool byte_token(fa_buf *b, size_t from) {
    const char *p = b->data + from;
    if (b->len - from != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>' || hex(p[3]) < 0 || hex(p[4]) < 0) return false;
    b->data[from] = (char)(hex(p[3]) * 16 + hex(p[4]));
    b->len = from + 1;
    return true;
}

static void strip(fa_buf *b, size_t from, const fa_dec *d) {
    size_t cut = 0, n = d->n_from;
    for (size_t i = 0; n && i < d->start && b->len - from - cut >= n && !memcmp(b->data + from + cut, d->from, n); i++)
        cut += n;
    memmove(b->data + from, b->data + from + cut, b->len - from - cut);
    b->len -= cut;
    for (size_t i = 0; n && i < d->stop && b->len - from >= n && !memcmp(b->data + b->len - n, d->from, n); i++)
        b->len -= n;
}

void fa_tok_bytes(const fa_tok *t, int32_t id, fa_buf *out) {
    size_t len, from = out->len;
    const char *piece = fa_tok_piece(t, id, &len);
    bool raw = false; /* a byte: no later step reads it as text */
    if (!piece || !len || fa_tok_is_special(t, id)) return;
    if (!t->has_decoder) fa_buf_add(out, " ", 1);
    fa_buf_add(out, piece, len);
    for (size_t k = 0; k < t->n_dec && !raw && !out->failed && out->len > from; k++) {
        const fa_dec *d = &t->dec[k];
        if (d->kind == FA_DEC_BYTE_LEVEL)
            byte_level(out, from);
        else if (d->kind == FA_DEC_BYTE_FALLBACK && !d->joined)
            raw = byte_token(out, from);
        else if (d->kind == FA_DEC_REPLACE)
            replace(out, from, d->from, d->n_from, d->to, d->n_to);
        else if (d->kind == FA_DEC_METASPACE)
            replace(out, from, d->from, d->n_from, " ", 1);
        else if (d->kind == FA_DEC_STRIP && !d->joined)
            strip(out, from, d);
    }
}
