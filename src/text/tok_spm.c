/* Loads SentencePiece models (tokenizer.model): a small reader of the protocol-buffer format, and the four kinds of
 * model. By itself such a file gives what SentencePiece gives: text never becomes a control token. With a
 * tokenizer_config.json beside it, the tokens that are named there are cut out of the text first, as transformers does
 * it. */
#include "text/tok_spm.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

#define WORD_SIGN "\xE2\x96\x81"

enum { MAX_PIECE = 8000 };
enum { UNIGRAM = 1, BPE = 2, WORD = 3, CHAR = 4 }; /* trainer_spec.model_type */

/* ---- protocol buffers ---- */

typedef struct pb {
    const uint8_t *p, *end;
    bool bad;
} pb;

typedef struct field {
    uint32_t number, wire;
    uint64_t value; /* varint, fixed */
    pb sub;         /* wire type 2 */
} field;

static uint64_t varint(pb *b) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (b->p == b->end) break;
        uint8_t c = *b->p++;
        v |= (uint64_t)(c & 0x7F) << shift;
        if (c < 0x80) return v;
    }
    b->bad = true;
    return 0;
}

static uint64_t fixed(pb *b, size_t n) {
    uint64_t v = 0;
    if ((size_t)(b->end - b->p) < n) return b->bad = true, 0;
    for (size_t i = 0; i < n; i++) v |= (uint64_t)b->p[i] << 8 * i;
    b->p += n;
    return v;
}

/* The next field; false at the end and at a fault (then bad is set). */
static bool next_field(pb *b, field *f) {
    if (b->bad || b->p == b->end) return false;
    uint64_t tag = varint(b);
    *f = (field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    if (b->bad || !f->number || tag >> 32) return b->bad = true, false;
    if (f->wire == 0) {
        f->value = varint(b);
    } else if (f->wire == 1) {
        f->value = fixed(b, 8);
    } else if (f->wire == 5) {
        f->value = fixed(b, 4);
    } else if (f->wire == 2) {
        uint64_t n = varint(b);
        if (b->bad || n > (uint64_t)(b->end - b->p)) return b->bad = true, false;
        f->sub = (pb){b->p, b->p + n, false};
        b->p += n;
    } else {
        b->bad = true;
    }
    return !b->bad;
}

/* ---- the model's messages ---- */

static int no_memory(const fa_spm_model *m, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", m->t->what);
}

static int broken(const fa_spm_model *m, const char *part, size_t at, fa_error *err) {
    return fa_fail(err, FFAI_EFORMAT, "%s: not a SentencePiece model: %s is broken at byte %zu", m->t->what, part, at);
}

static bool set_text(char **to, const pb *s) {
    fa_free(*to);
    *to = fa_strndup((const char *)s->p, (size_t)(s->end - s->p));
    return *to != NULL;
}

static bool good_text(const pb *s) {
    const char *p = (const char *)s->p;
    for (size_t i = 0, n = (size_t)(s->end - s->p); i < n;) {
        uint32_t cp;
        size_t k = (size_t)fa_utf8_decode(p + i, n - i, &cp);
        if (cp == 0xFFFD && !(k == 3 && memcmp(p + i, "\xEF\xBF\xBD", 3) == 0)) return false;
        i += k;
    }
    return true;
}

static bool grow(fa_spm_model *m) {
    if (m->n < m->cap) return true;
    size_t cap = m->cap * 2 + 256;
    float *score = (float *)fa_realloc(m->score, cap, sizeof *score);
    if (score) m->score = score;
    uint8_t *type = score ? (uint8_t *)fa_realloc(m->spm->type, cap, 1) : NULL;
    if (!type) return false;
    m->spm->type = type;
    m->cap = cap;
    return true;
}

static int read_piece(fa_spm_model *m, pb sub, fa_error *err) {
    field f;
    pb text = {0};
    uint32_t bits = 0;
    uint64_t type = FA_PIECE_NORMAL;
    const char *what = m->t->what;
    while (next_field(&sub, &f)) {
        if (f.number == 1 && f.wire == 2) text = f.sub;
        if (f.number == 2 && f.wire == 5) bits = (uint32_t)f.value;
        if (f.number == 3 && f.wire == 0) type = f.value;
    }
    if (sub.bad) return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] is broken", what, m->n);
    if (text.end - text.p >= MAX_PIECE)
        return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] is %zu bytes long", what, m->n, (size_t)(text.end - text.p));
    if (text.p == text.end) return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] is empty", what, m->n);
    if (!good_text(&text)) return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] is not UTF-8", what, m->n);
    if (type < FA_PIECE_NORMAL || type > FA_PIECE_BYTE)
        return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] has type %llu", what, m->n, (unsigned long long)type);
    if ((bits & 0x7F800000u) == 0x7F800000u)
        return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] has no finite score", what, m->n);
    if (m->n >= INT32_MAX / 4 || !grow(m)) return no_memory(m, err);
    memcpy(&m->score[m->n], &bits, 4);
    m->spm->type[m->n] = (uint8_t)type;
    return fa_strtab_set(&m->t->name, (uint32_t)m->n++, (const char *)text.p, (size_t)(text.end - text.p))
               ? FFAI_OK
               : no_memory(m, err);
}

static int read_trainer(fa_spm_model *m, pb sub, fa_error *err) {
    field f;
    bool ok = true;
    while (ok && next_field(&sub, &f)) {
        bool number = f.wire == 0, text = f.wire == 2;
        if (f.number == 3 && number) m->kind = f.value <= CHAR ? (int)f.value : 0;
        if (f.number == 24 && number) m->spm->suffix = f.value != 0;
        if (f.number == 35 && number) m->byte_fallback = f.value != 0;
        if (f.number == 44 && text) ok = set_text(&m->spm->unk_surface, &f.sub);
        if (f.number >= 45 && f.number <= 48 && text) ok = set_text(&m->name[f.number - 45], &f.sub);
    }
    if (sub.bad) return broken(m, "trainer_spec", 0, err);
    return ok ? FFAI_OK : no_memory(m, err);
}

static int read_rules(fa_spm_model *m, fa_spm_rules *r, pb sub, const char *key, fa_error *err) {
    field f;
    int rc = FFAI_OK;
    while (!rc && next_field(&sub, &f)) {
        if (f.number == 2 && f.wire == 2 && f.sub.end > f.sub.p) {
            fa_charsmap_free(r->map);
            r->map = NULL;
            rc = fa_charsmap_new(&r->map, f.sub.p, (size_t)(f.sub.end - f.sub.p), m->t->what, key, err);
        }
        if (f.number == 3 && f.wire == 0) r->dummy_prefix = f.value != 0;
        if (f.number == 4 && f.wire == 0) r->remove_extra = f.value != 0;
        if (f.number == 5 && f.wire == 0) r->escape = f.value != 0;
    }
    return !rc && sub.bad ? broken(m, key, 0, err) : rc;
}

static int read_model(fa_spm_model *m, const char *data, size_t len, fa_error *err) {
    pb b = {(const uint8_t *)data, (const uint8_t *)data + len, false};
    field f;
    int rc = FFAI_OK;
    while (!rc && next_field(&b, &f)) {
        if (f.wire != 2) continue;
        if (f.number == 1) rc = read_piece(m, f.sub, err);
        if (f.number == 2) rc = read_trainer(m, f.sub, err);
        if (f.number == 3) rc = read_rules(m, &m->spm->norm, f.sub, "normalizer_spec.precompiled_charsmap", err);
        if (f.number == 5) rc = read_rules(m, &m->spm->denorm, f.sub, "denormalizer_spec.precompiled_charsmap", err);
    }
    if (!rc && b.bad) rc = broken(m, "the file", (size_t)(b.p - (const uint8_t *)data), err);
    if (!rc && !m->n) rc = fa_fail(err, FFAI_EFORMAT, "%s: not a SentencePiece model: it has no pieces", m->t->what);
    m->spm->n_type = m->n;
    return rc;
}

/* ---- checks ---- */

static bool is_kept(const fa_spm_model *m, size_t i) {
    int type = m->spm->type[i];
    return type == FA_PIECE_NORMAL || type == FA_PIECE_USER_DEFINED || type == FA_PIECE_BYTE ||
           (type == FA_PIECE_UNUSED && m->t->name.span[i].len);
}

static int byte_piece(const char *s, size_t n) {
    static const char hex[] = "0123456789ABCDEF";
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    const char *a = (const char *)memchr(hex, s[3], 16), *b = (const char *)memchr(hex, s[4], 16);
    return a && b ? (int)((a - hex) * 16 + (b - hex)) : -1;
}

/* What SentencePiece refuses: pieces that are there twice, none or several unknown pieces, byte pieces that are not
 * complete. */
static int check_pieces(fa_spm_model *m, fa_error *err) {
    const fa_strtab *name = &m->t->name;
    bool have[256] = {false};
    size_t n_byte = 0;
    m->unk = -1;
    for (size_t i = 0; i < m->n; i++) {
        const char *s = name->pool + name->span[i].off;
        int type = m->spm->type[i], byte;
        if (type == FA_PIECE_UNKNOWN && m->unk >= 0)
            return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] \"%.60s\" is unknown as pieces[%d] is", m->t->what, i, s,
                           (int)m->unk);
        if (type == FA_PIECE_UNKNOWN) m->unk = (int32_t)i;
        if (is_kept(m, i) && fa_strtab_find(name, s, name->span[i].len) != (int32_t)i)
            return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] \"%.60s\" is there twice", m->t->what, i, s);
        if (type != FA_PIECE_BYTE) continue;
        if (!m->byte_fallback || (byte = byte_piece(s, name->span[i].len)) < 0)
            return fa_fail(err, FFAI_EFORMAT, "%s: pieces[%zu] \"%.60s\" is a byte piece%s", m->t->what, i, s,
                           m->byte_fallback ? ", but not <0xNN>" : ", but byte_fallback is off");
        n_byte += !have[byte];
        have[byte] = true;
    }
    if (m->unk < 0 && !m->byte_fallback)
        return fa_fail(err, FFAI_EFORMAT, "%s: no piece is the unknown piece", m->t->what);
    if (m->byte_fallback && n_byte < 256)
        return fa_fail(err, FFAI_EFORMAT, "%s: byte_fallback is on, but there are %zu byte pieces, not 256", m->t->what,
                       n_byte);
    return FFAI_OK;
}

static int index_pieces(fa_spm_model *m, fa_error *err) {
    uint8_t *keep = FA_NEWN(uint8_t, m->n + 1);
    if (!keep) return no_memory(m, err);
    for (size_t i = 0; i < m->n; i++) keep[i] = is_kept(m, i);
    bool ok = fa_strtab_index(&m->t->name, keep);
    fa_free(keep);
    return ok ? check_pieces(m, err) : no_memory(m, err);
}

/* ---- models ---- */

static bool one_char(const char *s, size_t n) {
    uint32_t cp;
    return (size_t)fa_utf8_decode(s, n, &cp) == n;
}

/* Merging by score; a character model is one that merges nothing. */
static int build_bpe(fa_spm_model *m, fa_error *err) {
    fa_tok *t = m->t;
    size_t k = 0;
    uint64_t *v = FA_NEWN(uint64_t, m->n * 2 + 1);
    if (!v) return no_memory(m, err);
    for (size_t i = 0; i < m->n; i++) {
        if (m->spm->type[i] == FA_PIECE_UNUSED && m->kind == BPE && !t->bpe.unused &&
            !(t->bpe.unused = FA_NEWN(uint8_t, m->n))) {
            fa_free(v);
            return no_memory(m, err);
        }
        if (m->spm->type[i] == FA_PIECE_UNUSED && t->bpe.unused)
            t->bpe.unused[i] = 1;
        else if (m->spm->type[i] != FA_PIECE_NORMAL)
            continue;
        if (m->kind == CHAR && !one_char(t->name.pool + t->name.span[i].off, t->name.span[i].len)) continue;
        v[k++] = (uint64_t)fa_tok_score_key(m->score[i]) << 32 | i;
    }
    t->bpe.by_score = t->bpe.fuse_unk = true;
    t->bpe.byte_fallback = m->byte_fallback;
    t->bpe.unk = m->unk;
    t->bpe.word = &t->name;
    int rc = fa_tok_put_ranks(t, v, k, err);
    fa_free(v);
    return rc;
}

static int build_unigram(fa_spm_model *m, fa_error *err) {
    double *score = FA_NEWN(double, m->n + 1);
    if (!score) return no_memory(m, err);
    for (size_t i = 0; i < m->n; i++) score[i] = (double)m->score[i];
    fa_unigram_opts o = {
        .score = score, .type = m->spm->type, .unk = m->unk, .byte_fallback = m->byte_fallback, .spm = true};
    int rc = fa_unigram_build(m->t, &o, err);
    fa_free(score);
    return rc;
}

static int build(fa_spm_model *m, fa_error *err) {
    if (m->kind == UNIGRAM) return build_unigram(m, err);
    if (m->kind == BPE || m->kind == CHAR) return build_bpe(m, err);
    if (m->kind != WORD || m->byte_fallback)
        return fa_fail(err, FFAI_ENOTSUP, "%s: trainer_spec.model_type %d%s is not supported", m->t->what, m->kind,
                       m->byte_fallback ? " with byte_fallback" : "");
    m->spm->fuse_unk = true;
    int rc = fa_tok_put_literal(m->t, WORD_SIGN, 3, FA_MERGED_NEXT, false, err);
    return rc ? rc : fa_wordlevel_build(m->t, m->unk, err);
}

/* ---- tokens that are cut out ---- */

/* User-defined pieces keep their text in the normalizer; BPE never merges across them (Unigram scores them so that they
 * win). */
static int put_user(fa_spm_model *m, fa_error *err) {
    fa_tok *t = m->t;
    for (size_t i = 0; i < m->n; i++) {
        int type = m->spm->type[i];
        bool user = type == FA_PIECE_USER_DEFINED;
        if (!user && type != FA_PIECE_CONTROL) continue;
        fa_buf copy = {0}; /* the pool that the text lies in may move */
        fa_buf_add(&copy, t->name.pool + t->name.span[i].off, t->name.span[i].len);
        bool ok = !copy.failed && (!user || fa_trie_put(&m->spm->user, copy.data, copy.len, (uint32_t)i));
        int rc = ok ? FFAI_OK : no_memory(m, err);
        fa_added a = {.text = copy.data, .len = copy.len, .id = (int32_t)i, .special = !user, .normalized = user};
        if (!rc && (!user || m->kind == BPE || m->kind == CHAR)) rc = fa_tok_add(t, &a, err);
        fa_buf_free(&copy);
        if (rc) return rc;
    }
    return FFAI_OK;
}

static int32_t find_name(const fa_spm_model *m, int which, const char *otherwise) {
    const char *s = m->name[which] && *m->name[which] ? m->name[which] : otherwise;
    for (size_t i = 0; i < m->n; i++) {
        int type = m->spm->type[i];
        if (type != FA_PIECE_CONTROL && type != FA_PIECE_UNKNOWN) continue;
        if (strcmp(m->t->name.pool + m->t->name.span[i].off, s) == 0) return (int32_t)i;
    }
    return -1;
}

static int load(fa_spm_model *m, const char *data, size_t len, const fa_tok_about *about, fa_error *err) {
    fa_tok *t = m->t;
    int rc = read_model(m, data, len, err);
    if (!rc && fa_spm_hf_known(about)) {
        t->spm = NULL; /* its normalizer and decoder are not used */
        return fa_spm_hf_build(m, about, err);
    }
    if (!rc) rc = index_pieces(m, err);
    if (!rc) rc = build(m, err);
    if (!rc) rc = fa_tok_put_spm(t, err);
    if (rc) return rc;
    t->unk = m->unk;
    t->bos = find_name(m, 1, "<s>");
    t->eos = find_name(m, 2, "</s>");
    t->pad = find_name(m, 3, "<pad>");
    bool beside = about && (about->config || about->special);
    m->spm->shows_special = beside;
    m->spm->only_first = beside && !fa_jbool(fa_jget(about->config, "legacy"), true);
    t->plain_special = !beside;
    rc = fa_tok_beside_added(t, about, m->n, err);
    if (!rc) rc = put_user(m, err);
    if (!rc) rc = fa_tok_beside_wrap(t, about, m->kind == BPE, m->kind == UNIGRAM, err);
    return rc ? rc : fa_tok_finish(t, err);
}

int fa_tok_from_spm(fa_tok **out, const char *data, size_t len, const fa_tok_about *about, const char *what,
                    fa_error *err) {
    fa_spm_model m = {.t = fa_tok_alloc(what), .kind = UNIGRAM};
    *out = NULL;
    if (m.t) m.spm = m.t->spm = FA_NEW(fa_spm);
    if (m.spm) m.spm->unk_surface = fa_strdup(" \xE2\x81\x87 ");
    int rc = FFAI_OK;
    if (!m.spm || !m.spm->unk_surface) {
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", what);
    } else {
        fa_spm_rules r = {.dummy_prefix = true, .remove_extra = true, .escape = true};
        m.spm->norm = m.spm->denorm = r;
        rc = load(&m, data, len, about, err);
    }
    for (int i = 0; i < 4; i++) fa_free(m.name[i]);
    fa_free(m.score);
    if (m.t && m.spm != m.t->spm) fa_spm_free(m.spm);
    if (rc)
        fa_tok_free(m.t);
    else
        *out = m.t;
    return rc;
}
