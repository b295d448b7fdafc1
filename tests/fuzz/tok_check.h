/* What must hold for any tokenizer and text: ids in range, decoding gives UTF-8, streaming gives the same. */
#ifndef TESTS_FUZZ_TOK_CHECK_H
#define TESTS_FUZZ_TOK_CHECK_H

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "text/tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void check_utf8(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t k = (size_t)fa_utf8_decode(s + i, n - i, &cp);
        if (cp == 0xFFFD && !(k == 3 && memcmp(s + i, "\xEF\xBF\xBD", 3) == 0)) abort();
        i += k;
    }
}

static inline void check_text(const fa_tok *t, const char *s, size_t n, unsigned flags) {
    fa_error err;
    int32_t *ids;
    size_t n_ids;
    fa_buf out = {0}, streamed = {0};
    fa_tok_stream *stream;
    if (fa_tok_encode(t, s, n, flags, &ids, &n_ids, &err)) {
        if (ids || n_ids) abort();
        return;
    }
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= fa_tok_size(t)) abort();
    if (fa_tok_decode(t, ids, n_ids, false, &out, &err)) { /* a pattern of a decoder may take too long */
        if (err.code != FFAI_ELIMIT && err.code != FFAI_ENOTSUP) abort();
        fa_buf_free(&out);
        fa_free(ids);
        return;
    }
    check_utf8(out.data, out.len);
    if (fa_tok_stream_new(&stream, t, false, &err)) abort();
    for (size_t i = 0; i < n_ids; i++) {
        if (fa_tok_stream_push(stream, ids[i], &streamed, &err)) abort();
        check_utf8(streamed.data, streamed.len);
    }
    if (fa_tok_stream_flush(stream, &streamed, &err)) abort();
    if (streamed.len != out.len || (out.len && memcmp(streamed.data, out.data, out.len) != 0)) abort();
    fa_tok_stream_free(stream);
    fa_buf_free(&out);
    fa_buf_free(&streamed);
    fa_free(ids);
}

#endif
