/* Ids back to text. The decoder steps of the file run as a chain of filters: each takes one token's text at a time and
 * hands on what nothing later can change. Decoding a whole list is pushing all of it and flushing, so streaming and
 * whole decoding agree by construction. */
#include "text/spm.h"
#include "text/tok_steps.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD"

/* Bytes that print as themselves keep their code point; the other 68 are U+0100 and up, in order (GPT-2's table). */
static bool prints(unsigned b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

int fa_byte_of_char(uint32_t cp) {
    if (cp < 0x100) return prints(cp) ? (int)cp : -1;
    if (cp < 0x121) return (int)(cp - 0x100);        /* 00..20 */
    if (cp < 0x143) return (int)(cp - 0x121 + 0x7F); /* 7F..A0 */
    return cp == 0x143 ? 0xAD : -1;
}

int fa_char_of_byte(unsigned b, char *out) {
    char c[4];
    uint32_t cp = prints(b) ? b : b < 0x21 ? 0x100 + b : b < 0xA1 ? 0x121 + b - 0x7F : 0x143;
    int n = fa_utf8_encode(cp, c);
    memcpy(out, c, (size_t)n);
    return n;
}

struct fa_tok_stream {
    const fa_tok *t;
    bool skip_special;
    bool began;                     /* a token has been pushed */
    fa_buf *out;                    /* of the current call */
    fa_spm_dec spm;                 /* SentencePiece models decode by themselves */
    fa_buf pend[FA_TOK_MAX_STEPS];  /* what a step holds back */
    size_t count[FA_TOK_MAX_STEPS]; /* STRIP: stripped so far, or SIZE_MAX; others: tokens seen */
    fa_regex_run *re;
    int rc; /* of a pattern that failed; err has its message */
    fa_error err;
};

static void emit(fa_tok_stream *s, size_t k, const char *p, size_t n);

/* Hands on bytes with U+FFFD for each ill-formed part. */
static void emit_lossy(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp = (unsigned char)p[i];
        if (cp < 0x80) {
            i++;
            continue;
        }
        size_t len = (size_t)fa_utf8_decode(p + i, n - i, &cp);
        if (cp == 0xFFFD && !(len == 3 && memcmp(p + i, REPLACEMENT, 3) == 0)) {
            if (i > from) emit(s, k, p + from, i - from);
            emit(s, k, REPLACEMENT, 3);
            from = i + len;
        }
        i += len;
    }
    if (n > from) emit(s, k, p + from, n - from);
}

/* Appends the bytes that a token's characters stand for; false, and nothing added, when one of them is no byte. */
static bool add_bytes(const char *p, size_t n, fa_buf *b) {
    size_t old = b->len;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += (size_t)fa_utf8_decode(p + i, n - i, &cp);
        int byte = fa_byte_of_char(cp);
        if (byte < 0) {
            b->len = old;
            return false;
        }
        char c = (char)byte;
        fa_buf_add(b, &c, 1);
    }
    return true;
}

bool fa_tok_bytes_of_piece(const char *p, size_t n, fa_buf *b) {
    b->len = 0;
    return add_bytes(p, n, b);
}

/* A token with any character outside the alphabet stands for its own bytes. */
static void byte_level(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    fa_buf *b = &s->pend[k];
    if (!add_bytes(p, n, b)) fa_buf_add(b, p, n);
    if (!b->len || b->failed) return;
    size_t tail = fa_utf8_partial_tail(b->data, b->len), ready = b->len - tail;
    if (!ready) return;
    emit_lossy(s, k + 1, b->data, ready);
    memmove(b->data, b->data + ready, tail);
    b->len = tail;
}

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static int byte_token(const char *p, size_t n) {
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>') return -1;
    int hi = p[3] == '+' ? 0 : hex(p[3]), lo = hex(p[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

/* A run of byte tokens is text if all of it is UTF-8, otherwise each of its bytes is a U+FFFD. */
static void end_byte_run(fa_tok_stream *s, size_t k) {
    fa_buf *b = &s->pend[k];
    bool good = true;
    for (size_t i = 0; i < b->len && good;) {
        uint32_t cp;
        size_t len = (size_t)fa_utf8_decode(b->data + i, b->len - i, &cp);
        good = cp != 0xFFFD || (len == 3 && memcmp(b->data + i, REPLACEMENT, 3) == 0);
        i += len;
    }
    if (good && b->len) emit(s, k + 1, b->data, b->len);
    for (size_t i = 0; !good && i < b->len; i++) emit(s, k + 1, REPLACEMENT, 3);
    b->len = 0;
}

static void emit_buf(fa_tok_stream *s, size_t k, fa_buf *b) {
    if (b->failed)
        s->out->failed = true;
    else
        emit(s, k, b->data ? b->data : "", b->len);
    fa_buf_free(b);
}

/* p[0..n) with `to` in place of each `from`, as one token. */
static void replace(fa_tok_stream *s, size_t k, const char *p, size_t n, const char *to, size_t n_to) {
    const fa_dec *d = &s->t->dec[k];
    fa_buf b = {0};
    size_t from = 0;
    for (size_t i = 0; i + d->n_from <= n;) {
        if (!d->n_from || p[i] != d->from[0] || memcmp(p + i, d->from, d->n_from) != 0) {
            i++;
            continue;
        }
        fa_buf_add(&b, p + from, i - from);
        fa_buf_add(&b, to, n_to);
        from = i += d->n_from;
    }
    if (!from) {
        emit(s, k + 1, p, n);
        return;
    }
    fa_buf_add(&b, p + from, n - from);
    emit_buf(s, k + 1, &b);
}

/* The same over one string that comes in parts: only what may be the beginning of a `from` waits. */
static void replace_parts(fa_tok_stream *s, size_t k, const char *p, size_t n, const char *to, size_t n_to) {
    const fa_dec *d = &s->t->dec[k];
    fa_buf *b = &s->pend[k];
    size_t at = 0, from = 0;
    fa_buf_add(b, p, n);
    if (b->failed) return;
    while (at < b->len) {
        size_t len = b->len - at < d->n_from ? b->len - at : d->n_from;
        if (memcmp(b->data + at, d->from, len) != 0) {
            at++;
            continue;
        }
        if (len < d->n_from) break;
        if (at > from) emit(s, k + 1, b->data + from, at - from);
        emit(s, k + 1, to, n_to);
        from = at += d->n_from;
    }
    if (at > from) emit(s, k + 1, b->data + from, at - from);
    memmove(b->data, b->data + at, b->len - at);
    b->len -= at;
}

static void replace_re(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    const fa_dec *d = &s->t->dec[k];
    fa_buf b = {0};
    fa_regex_at it = {0};
    size_t from = 0;
    int rc;
    while (n && !s->rc && (rc = fa_regex_next(d->re, &s->re, p, n, &it, &s->err)) != 0) {
        if (rc < 0) {
            s->rc = rc;
            break;
        }
        fa_buf_add(&b, p + from, it.a - from);
        fa_buf_add(&b, d->to, d->n_to);
        from = it.b;
    }
    fa_buf_add(&b, p + from, n - from);
    emit_buf(s, k + 1, &b);
}

/* Cuts up to start/stop times the one character `from` off the ends of p[0..n). */
static void strip(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    const fa_dec *d = &s->t->dec[k];
    for (size_t i = 0; i < d->start && n >= d->n_from && memcmp(p, d->from, d->n_from) == 0; i++) {
        p += d->n_from;
        n -= d->n_from;
    }
    for (size_t i = 0; i < d->stop && n >= d->n_from && memcmp(p + n - d->n_from, d->from, d->n_from) == 0; i++)
        n -= d->n_from;
    emit(s, k + 1, p, n);
}

/* The same at the start of one string that comes in parts (no part ends inside a character). */
static void strip_start(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    const fa_dec *d = &s->t->dec[k];
    size_t *done = &s->count[k];
    while (n && *done < d->start && n >= d->n_from && memcmp(p, d->from, d->n_from) == 0) {
        p += d->n_from;
        n -= d->n_from;
        ++*done;
    }
    if (n) *done = SIZE_MAX;
    if (n) emit(s, k + 1, p, n);
}

static void metaspace(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    const fa_dec *d = &s->t->dec[k];
    bool drop = d->start && (d->joined || s->count[k] == 0);
    s->count[k] = 1;
    replace(s, k, p, n, " ", !drop);
}

/* ---- words ---- */

/* What WordPiece and CTC make of spaces that the split into words has left, one after the other. */
static void clean_up(fa_buf *b) {
    static const char *const pair[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                          {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                          {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof pair / sizeof *pair && b->len && memchr(b->data, ' ', b->len); i++) {
        size_t n_from = strlen(pair[i][0]), n_to = strlen(pair[i][1]), w = 0, r = 0; /* n_to is the smaller one */
        while (r < b->len) {
            if (b->len - r >= n_from && memcmp(b->data + r, pair[i][0], n_from) == 0) {
                memcpy(b->data + w, pair[i][1], n_to);
                w += n_to;
                r += n_from;
            } else {
                b->data[w++] = b->data[r++];
            }
        }
        b->len = w;
    }
}

static void wordpiece(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    const fa_dec *d = &s->t->dec[k];
    fa_buf b = {0};
    if (s->count[k]) {
        if (n >= d->n_from && memcmp(p, d->from, d->n_from) == 0) {
            p += d->n_from;
            n -= d->n_from;
        } else {
            fa_buf_add(&b, " ", 1);
        }
    }
    s->count[k] = 1;
    fa_buf_add(&b, p, n);
    if (d->start && !b.failed) clean_up(&b);
    emit_buf(s, k + 1, &b);
}

static bool holds(const char *p, size_t n, const char *what, size_t len) {
    for (size_t i = 0; i + len <= n; i++)
        if (memcmp(p + i, what, len) == 0) return true;
    return false;
}

/* Suffixes are spaces, but not in the last token: one that has some waits for the next. */
static void bpe_end(fa_tok_stream *s, size_t k, bool last) {
    const fa_dec *d = &s->t->dec[k];
    fa_buf *b = &s->pend[k];
    if (!s->count[k]) return;
    s->count[k] = 0;
    if (d->n_from) {
        replace(s, k, b->data, b->len, " ", !last);
    } else { /* the empty suffix is between all characters */
        fa_buf own = {0};
        for (size_t i = 0; i < b->len; i++) {
            if (!last && ((unsigned char)b->data[i] & 0xC0) != 0x80) fa_buf_add(&own, " ", 1);
            fa_buf_add(&own, b->data + i, 1);
        }
        if (!last) fa_buf_add(&own, " ", 1);
        emit_buf(s, k + 1, &own);
    }
    b->len = 0;
}

static void bpe(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    const fa_dec *d = &s->t->dec[k];
    bpe_end(s, k, false);
    if (holds(p, n, d->from, d->n_from)) {
        s->count[k] = 1;
        fa_buf_add(&s->pend[k], p, n);
    } else {
        emit(s, k + 1, p, n);
    }
}

/* All occurrences of what[0..n_what) in b become to[0..n_to); an empty `what` with a space is between all characters.
 */
static void replace_in(fa_buf *b, const char *what, size_t n_what, const char *to, size_t n_to) {
    fa_buf own = {0};
    for (size_t i = 0; i <= b->len;) {
        if (n_what && b->len - i >= n_what && memcmp(b->data + i, what, n_what) == 0) {
            fa_buf_add(&own, to, n_to);
            i += n_what;
            continue;
        }
        if (!n_what && (i == b->len || ((unsigned char)b->data[i] & 0xC0) != 0x80)) fa_buf_add(&own, to, n_to);
        if (i < b->len) fa_buf_add(&own, b->data + i, 1);
        i++;
    }
    own.failed |= b->failed;
    fa_buf_free(b);
    *b = own;
}

/* A token that repeats the one before it is left out. */
static void ctc(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    const fa_dec *d = &s->t->dec[k];
    fa_buf *before = &s->pend[k], b = {0};
    if (s->count[k] && before->len == n && (!n || memcmp(before->data, p, n) == 0)) return;
    s->count[k] = 1;
    before->len = 0;
    fa_buf_add(before, p, n);
    fa_buf_add(&b, p, n);
    if (d->n_from) replace_in(&b, d->from, d->n_from, "", 0);
    if (d->start && !b.failed) {
        clean_up(&b);
        replace_in(&b, d->to, d->n_to, " ", 1);
    }
    if (b.failed || b.len)
        emit_buf(s, k + 1, &b);
    else
        fa_buf_free(&b);
}

/* ---- the chain ---- */

/* Once tokens are joined, steps that look at whole tokens see one: it is complete at the end only. */
static bool waits(const fa_dec *d) {
    if (!d->joined) return false;
    switch (d->kind) {
    case FA_DEC_FUSE:
    case FA_DEC_REPLACE:
    case FA_DEC_BPE: return false;
    case FA_DEC_METASPACE: return false;
    case FA_DEC_STRIP: return d->stop > 0;
    case FA_DEC_WORDPIECE: return d->start != 0;
    default: return true;
    }
}

static void fallback(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    int byte = byte_token(p, n);
    if (byte >= 0) {
        char c = (char)byte;
        fa_buf_add(&s->pend[k], &c, 1);
    } else {
        end_byte_run(s, k);
        emit(s, k + 1, p, n);
    }
}

static void apply(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    const fa_dec *d = &s->t->dec[k];
    switch (d->kind) {
    case FA_DEC_BYTE_LEVEL: byte_level(s, k, p, n); break;
    case FA_DEC_BYTE_FALLBACK: fallback(s, k, p, n); break;
    case FA_DEC_FUSE: emit(s, k + 1, p, n); break;
    case FA_DEC_STRIP:
        if (d->joined && !d->stop)
            strip_start(s, k, p, n);
        else
            strip(s, k, p, n);
        break;
    case FA_DEC_REPLACE:
        if (d->joined)
            replace_parts(s, k, p, n, d->to, d->n_to);
        else
            replace(s, k, p, n, d->to, d->n_to);
        break;
    case FA_DEC_REPLACE_RE: replace_re(s, k, p, n); break;
    case FA_DEC_METASPACE: metaspace(s, k, p, n); break;
    case FA_DEC_WORDPIECE:
        if (d->joined && !d->start)
            emit(s, k + 1, p, n);
        else
            wordpiece(s, k, p, n);
        break;
    case FA_DEC_BPE:
        if (!d->joined)
            bpe(s, k, p, n);
        else if (d->n_from)
            replace_parts(s, k, p, n, "", 0);
        else
            emit(s, k + 1, p, n);
        break;
    case FA_DEC_CTC: ctc(s, k, p, n); break;
    }
}

static void emit(fa_tok_stream *s, size_t k, const char *p, size_t n) {
    if (k == s->t->n_dec)
        fa_buf_add(s->out, p, n);
    else if (waits(&s->t->dec[k]))
        fa_buf_add(&s->pend[k], p, n);
    else
        apply(s, k, p, n);
}

int fa_tok_stream_new(fa_tok_stream **out, const fa_tok *t, bool skip_special, fa_error *err) {
    fa_tok_stream *s = *out = FA_NEW(fa_tok_stream);
    if (!s) return fa_fail(err, FFAI_ENOMEM, "tokenizer: no memory");
    s->t = t;
    s->skip_special = skip_special;
    return FFAI_OK;
}

void fa_tok_stream_free(fa_tok_stream *s) {
    if (!s) return;
    for (size_t k = 0; k < FA_TOK_MAX_STEPS; k++) fa_buf_free(&s->pend[k]);
    fa_spm_dec_free(&s->spm);
    fa_regex_run_free(s->re);
    fa_free(s);
}

static int check(fa_tok_stream *s, fa_error *err) {
    bool failed = s->out->failed || fa_spm_dec_failed(&s->spm);
    for (size_t k = 0; k < s->t->n_dec; k++) failed |= s->pend[k].failed;
    int rc = s->rc;
    s->out = NULL;
    s->rc = FFAI_OK;
    if (rc && err) *err = s->err;
    if (rc) return rc;
    return failed ? fa_fail(err, FFAI_ENOMEM, "tokenizer: no memory for decoded text") : FFAI_OK;
}

/* Bytes of a byte-level decoder that wait for more get none. */
static void end_text(fa_tok_stream *s) {
    for (size_t k = 0; k < s->t->n_dec; k++) {
        if (s->t->dec[k].kind != FA_DEC_BYTE_LEVEL) continue;
        emit_lossy(s, k + 1, s->pend[k].data, s->pend[k].len);
        s->pend[k].len = 0;
    }
}

static void push(fa_tok_stream *s, int32_t id) {
    const fa_tok *t = s->t;
    size_t len;
    const char *text = fa_tok_piece(t, id, &len);
    if (t->spm) {
        if (text) fa_spm_dec_push(t, &s->spm, id, text, len, s->skip_special, s->out);
        return;
    }
    if (t->special_breaks && text && t->special[id]) end_text(s);
    if (!text || (s->skip_special && t->special[id])) return;
    if (!t->has_decoder && s->began) fa_buf_add(s->out, " ", 1);
    s->began = true;
    emit(s, 0, text, len);
}

int fa_tok_stream_push(fa_tok_stream *s, int32_t id, fa_buf *out, fa_error *err) {
    s->out = out;
    fa_regex_run_begin(s->re);
    push(s, id);
    return check(s, err);
}

static void flush(fa_tok_stream *s) {
    if (s->t->spm) fa_spm_dec_flush(s->t, &s->spm, s->out);
    for (size_t k = 0; k < s->t->n_dec; k++) {
        const fa_dec *d = &s->t->dec[k];
        fa_buf *b = &s->pend[k];
        if (waits(d)) {
            fa_buf whole = *b; /* the step itself may use the buffer */
            *b = (fa_buf){0};
            apply(s, k, whole.data ? whole.data : "", whole.len);
            fa_buf_free(&whole);
        }
        if (d->kind == FA_DEC_BYTE_LEVEL)
            emit_lossy(s, k + 1, b->data, b->len);
        else if (d->kind == FA_DEC_BYTE_FALLBACK)
            end_byte_run(s, k);
        else if (d->kind == FA_DEC_BPE && !d->joined)
            bpe_end(s, k, true);
        else if (d->joined && (d->kind == FA_DEC_REPLACE || d->kind == FA_DEC_BPE) && b->len)
            emit(s, k + 1, b->data, b->len);
        b->len = 0;
        s->count[k] = 0;
    }
    s->began = false;
}

int fa_tok_stream_flush(fa_tok_stream *s, fa_buf *out, fa_error *err) {
    s->out = out;
    flush(s);
    return check(s, err);
}

int fa_tok_decode(const fa_tok *t, const int32_t *ids, size_t n, bool skip_special, fa_buf *out, fa_error *err) {
    size_t old = out->len;
    for (size_t i = 0; i < n; i++)
        if (!fa_strtab_has(&t->name, ids[i]))
            return fa_fail(err, FFAI_EINVAL,
                           "token id %d at place %zu: the tokenizer has no such token (ids are 0 to %zu)", (int)ids[i],
                           i, t->name.n_id ? t->name.n_id - 1 : 0);
    fa_tok_stream *s;
    int rc = fa_tok_stream_new(&s, t, skip_special, err);
    if (rc) return rc;
    s->out = out;
    for (size_t i = 0; i < n; i++) push(s, ids[i]);
    flush(s);
    rc = check(s, err);
    fa_tok_stream_free(s);
    if (rc && out->data) out->data[out->len = old] = 0;
    return rc;
}
