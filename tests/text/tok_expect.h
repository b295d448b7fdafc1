/* Shared by the tokenizer tests: expected.json rows against a tokenizer. A row is the ids of a text, the ids that
 * special tokens add in front and behind, and the decoded text (0: the text itself); long lists and texts are
 * "count:FNV-1a 64". Texts are hex, or [hex, repeat]. */
#ifndef TESTS_TEXT_TOK_EXPECT_H
#define TESTS_TEXT_TOK_EXPECT_H

#include "base/alloc.h"
#include "base/utf8.h"
#include "io/json.h"
#include "text/tok.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static inline int expect_nibble(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static inline fa_buf expect_text(const fa_jnode *n) {
    fa_buf b = {0};
    int64_t times = 1;
    if (fa_jtype_of(n) == FA_JARR) {
        times = fa_jint(fa_jnext(fa_jfirst(n)), 1);
        n = fa_jfirst(n);
    }
    size_t len = 0;
    const char *s = fa_jstr(n, &len);
    while (times--)
        for (size_t i = 0; i + 1 < len; i += 2) {
            char c = (char)(expect_nibble(s[i]) * 16 + expect_nibble(s[i + 1]));
            fa_buf_add(&b, &c, 1);
        }
    return b;
}

static inline bool expect_digest(const char *want, size_t count, const void *data, size_t bytes) {
    char s[64];
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < bytes; i++) h = (h ^ ((const uint8_t *)data)[i]) * UINT64_C(0x100000001B3);
    snprintf(s, sizeof s, "%zu:%016" PRIx64, count, h);
    return strcmp(s, want) == 0;
}

static inline bool expect_ids(const fa_jnode *want, const int32_t *ids, size_t n) {
    const char *digest = fa_jstr(want, NULL);
    if (digest) return expect_digest(digest, n, ids, n * 4);
    if (fa_jlen(want) != n) return false;
    size_t i = 0;
    for (const fa_jnode *k = fa_jfirst(want); k; k = fa_jnext(k), i++)
        if (fa_jint(k, -1) != ids[i]) return false;
    return true;
}

/* Decoded in one go and id by id. */
static inline bool expect_decoded(const fa_tok *t, const fa_jnode *want, const fa_buf *text, const int32_t *ids,
                                  size_t n) {
    fa_buf out = {0}, part = {0}, fixed = {0};
    fa_tok_stream *s = NULL;
    bool ok = fa_tok_decode(t, ids, n, true, &out, NULL) == 0 && fa_tok_stream_new(&s, t, true, NULL) == 0;
    for (size_t i = 0; i < n && ok; i++) {
        ok = fa_tok_stream_push(s, ids[i], &part, NULL) == 0;
        /* what has come out is a beginning, in whole characters */
        ok = ok && part.len <= out.len && (!part.len || memcmp(part.data, out.data, part.len) == 0);
        ok = ok && (part.len == out.len || ((unsigned char)out.data[part.len] & 0xC0) != 0x80);
    }
    ok = ok && fa_tok_stream_flush(s, &part, NULL) == 0;
    ok = ok && part.len == out.len && (!out.len || memcmp(part.data, out.data, out.len) == 0);
    size_t len;
    const char *w = fa_jstr(want, &len);
    if (!w) {
        for (size_t k = 0; k < text->len;) {
            uint32_t cp;
            char c[4];
            k += (size_t)fa_utf8_decode(text->data + k, text->len - k, &cp);
            fa_buf_add(&fixed, c, (size_t)fa_utf8_encode(cp, c));
        }
        w = fixed.data ? fixed.data : "";
        len = fixed.len;
    }
    ok = ok && ((out.len == len && (!len || memcmp(out.data, w, len) == 0)) ||
                (fa_jtype_of(want) == FA_JSTR && expect_digest(w, out.len, out.data, out.len)));
    if (!ok) fprintf(stderr, "decoded \"%.100s\", want \"%.100s\"\n", out.data ? out.data : "", w);
    fa_tok_stream_free(s);
    fa_buf_free(&out);
    fa_buf_free(&part);
    fa_buf_free(&fixed);
    return ok;
}

/* One row; false, with a line on stderr, when something differs. */
static inline bool expect_row(const fa_tok *t, const char *name, size_t i, const fa_buf *text, const fa_jnode *row) {
    fa_error err;
    int32_t *ids = NULL, *all = NULL;
    size_t n = 0, n_all = 0;
    const fa_jnode *want = fa_jfirst(row), *before = fa_jnext(want), *after = fa_jnext(before);
    const char *s = text->data ? text->data : "";
    size_t nb = fa_jlen(before), na = fa_jlen(after);
    bool ok = fa_tok_encode(t, s, text->len, 0, &ids, &n, &err) == 0 && expect_ids(want, ids, n);
    ok = ok && fa_tok_encode(t, s, text->len, FA_TOK_SPECIAL, &all, &n_all, &err) == 0 && n_all == n + nb + na;
    ok = ok && expect_ids(before, all, nb) && (!n || memcmp(all + nb, ids, n * 4) == 0) &&
         expect_ids(after, n_all ? all + nb + n : NULL, na);
    if (!ok) {
        fprintf(stderr, "%s, text %zu: \"%.60s\":", name, i, s);
        for (size_t k = 0; k < n && k < 30; k++) fprintf(stderr, " %d", (int)ids[k]);
        fprintf(stderr, "\n");
    } else if (!expect_decoded(t, fa_jnext(after), text, all, n_all)) {
        fprintf(stderr, "%s, text %zu: \"%.60s\" is decoded otherwise\n", name, i, s);
        ok = false;
    }
    fa_free(ids);
    fa_free(all);
    return ok;
}

/* How many of the texts differ. */
static inline int expect_all(const fa_tok *t, const char *name, const fa_jnode *texts, const fa_jnode *rows) {
    int bad = 0;
    size_t i = 0;
    const fa_jnode *text = fa_jfirst(texts), *row = fa_jfirst(rows);
    for (; text && row; text = fa_jnext(text), row = fa_jnext(row), i++) {
        fa_buf b = expect_text(text);
        bad += !expect_row(t, name, i, &b, row);
        fa_buf_free(&b);
    }
    return bad + (i < 80) + (text != NULL) + (row != NULL);
}

#endif
