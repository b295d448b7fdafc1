/* Loads the tokenizer of a GGUF file from its tokenizer.ggml.* metadata: what the file holds, its tokens, and which
 * loader of tok_gguf_kinds.c goes on. The result gives the same ids as the tokenizer that the file was converted from.
 */
#include "text/tok_gguf.h"
#include "base/alloc.h"

#include <string.h>

typedef enum style { ANY, SPM, BERT, RWKV } style; /* how tokens are spelled */

static const struct kind_row {
    const char *model;
    style how;
    int (*load)(fa_tgguf *, fa_error *);
    bool bos, eos, sep;
} kinds[] = {
    {"llama", SPM, fa_tgguf_llama, true, false, false},   {"gpt2", ANY, fa_tgguf_gpt2, false, false, false},
    {"gemma4", SPM, fa_tgguf_gemma4, true, false, false}, {"bert", BERT, fa_tgguf_bert, true, false, true},
    {"t5", ANY, fa_tgguf_t5, false, true, false},         {"rwkv", RWKV, fa_tgguf_rwkv, false, false, false},
    {"plamo2", ANY, fa_tgguf_plamo2, true, false, false}, {"whitespace", ANY, fa_tgguf_gpt2, false, false, false},
};

static int no_memory(const fa_tok *t, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

/* ---- metadata ---- */

int fa_tgguf_array(const fa_gguf_value **out, const fa_gguf *g, const char *key, bool text, uint64_t n, const fa_tok *t,
                   fa_error *err) {
    const fa_gguf_value *v = *out = fa_gguf_find(g, key);
    if (!v) return FFAI_OK;
    bool is_text = v->elem == FA_GGUF_STR;
    if (v->type != FA_GGUF_ARR || is_text != text || v->elem == FA_GGUF_ARR)
        return fa_fail(err, FFAI_EFORMAT, "%s: %s has the wrong type", t->what, key);
    if (n && v->n != n)
        return fa_fail(err, FFAI_EFORMAT, "%s: %s has %llu entries for %llu tokens", t->what, key,
                       (unsigned long long)v->n, (unsigned long long)n);
    return FFAI_OK;
}

bool fa_tgguf_flag(const fa_gguf *g, const char *key, bool otherwise) {
    const fa_gguf_value *v = fa_gguf_find(g, key);
    return v && v->type != FA_GGUF_STR && v->type != FA_GGUF_ARR ? v->i != 0 : otherwise;
}

/* An id of the vocabulary, or -1 (absent). */
static int read_id(int32_t *id, const fa_gguf *g, const char *key, const fa_tok *t, fa_error *err) {
    const fa_gguf_value *v = fa_gguf_find(g, key);
    *id = -1;
    if (!v) return FFAI_OK;
    if (v->type == FA_GGUF_STR || v->type == FA_GGUF_ARR)
        return fa_fail(err, FFAI_EFORMAT, "%s: %s has the wrong type", t->what, key);
    if (v->i == -1 || v->i == UINT32_MAX) return FFAI_OK;
    if (!fa_strtab_has(&t->name, v->i))
        return fa_fail(err, FFAI_EFORMAT, "%s: %s is %lld, the vocabulary has %zu tokens", t->what, key,
                       (long long)v->i, t->name.n_id);
    *id = (int32_t)v->i;
    return FFAI_OK;
}

/* ---- tokens ---- */

/* 0 for what is no type. */
int fa_tgguf_type(const fa_gguf_value *types, uint64_t i) {
    double v = types ? fa_gguf_num_at(types, i) : FA_PIECE_NORMAL;
    return v >= FA_PIECE_NORMAL && v <= FA_PIECE_BYTE ? (int)v : 0;
}

/* Converters write the spaces of user-defined SentencePiece tokens as spaces. Runs of spaces are pieces like others in
 * the original: the word sign again. */
static bool space_run(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ') return false;
    return n > 0;
}

/* BERT's converter marks the beginning of words, the original what goes on: "\u2581word" and "part" are "word" and
 * "##part". */
static void put_bert(fa_buf *b, const char *s, size_t n) {
    if (n > 3 && memcmp(s, FA_WORD_SIGN, 3) == 0) {
        fa_tok_repair(b, s + 3, n - 3);
        return;
    }
    if (!(n && s[0] == '[' && s[n - 1] == ']')) fa_buf_puts(b, "##");
    fa_tok_repair(b, s, n);
}

/* RWKV's tokens are bytes with \\t \\n \\r \\xHH; the name is in the byte-level alphabet. */
static bool put_rwkv(fa_tok *t, uint32_t id, fa_buf *b, const char *s, size_t n) {
    static const char hex[] = "0123456789abcdef";
    fa_buf raw = {0};
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '\\' && i + 1 < n) {
            c = s[++i];
            c = c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c;
            const char *hi = i + 2 < n ? (const char *)memchr(hex, s[i + 1] | 0x20, 16) : NULL;
            const char *lo = hi ? (const char *)memchr(hex, s[i + 2] | 0x20, 16) : NULL;
            if (c == 'x' && lo) {
                c = (char)((hi - hex) * 16 + (lo - hex));
                i += 2;
            }
        }
        char out[4];
        fa_buf_add(b, out, (size_t)fa_char_of_byte((unsigned char)c, out));
        fa_buf_add(&raw, &c, 1);
    }
    bool ok = !raw.failed && fa_strtab_set(&t->raw, id, raw.data ? raw.data : "", raw.len);
    fa_buf_free(&raw);
    return ok;
}

static bool set_name(fa_tok *t, uint32_t id, const char *s, size_t n, int type, style how, fa_buf *b) {
    bool ok = true;
    b->len = 0;
    if (how == SPM && type == FA_PIECE_USER_DEFINED && space_run(s, n))
        for (size_t i = 0; i < n; i++) fa_buf_puts(b, FA_WORD_SIGN);
    else if (how == BERT)
        put_bert(b, s, n);
    else if (how == RWKV && type == FA_PIECE_NORMAL)
        ok = put_rwkv(t, id, b, s, n);
    else
        fa_tok_repair(b, s, n);
    return ok && !b->failed && fa_strtab_set(&t->name, id, b->data ? b->data : "", b->len);
}

static int read_tokens(fa_tok *t, const fa_gguf_value *tokens, const fa_gguf_value *types, style how, fa_error *err) {
    size_t pos = 0, len;
    const char *s;
    fa_buf b = {0};
    uint8_t *keep = FA_NEWN(uint8_t, tokens->n);
    bool ok = keep != NULL;
    for (uint64_t i = 0; ok && i < tokens->n && fa_gguf_next_str(tokens, &pos, &s, &len); i++) {
        int type = fa_tgguf_type(types, i);
        keep[i] = type == FA_PIECE_NORMAL || type == FA_PIECE_USER_DEFINED || type == FA_PIECE_BYTE;
        ok = set_name(t, (uint32_t)i, s, len, type, how, &b);
    }
    ok = ok && fa_strtab_index(&t->name, keep);
    fa_free(keep);
    fa_buf_free(&b);
    return ok ? FFAI_OK : no_memory(t, err);
}

/* Control, unknown and user-defined tokens are cut out of the text first. */
static int read_added(fa_tok *t, const fa_gguf_value *types, fa_error *err) {
    size_t n = 0;
    for (uint64_t i = 0; types && i < types->n; i++) {
        int type = fa_tgguf_type(types, i);
        n += type == FA_PIECE_CONTROL || type == FA_PIECE_UNKNOWN || type == FA_PIECE_USER_DEFINED;
    }
    if (!n) return FFAI_OK;
    t->added = FA_NEWN(fa_added, n);
    if (!t->added || !fa_smap_reserve(&t->added_id, n)) return no_memory(t, err);
    for (uint64_t i = 0; i < types->n; i++) {
        int type = fa_tgguf_type(types, i);
        if (type != FA_PIECE_CONTROL && type != FA_PIECE_UNKNOWN && type != FA_PIECE_USER_DEFINED) continue;
        fa_added a = {.id = (int32_t)i, .special = type != FA_PIECE_USER_DEFINED, .len = t->name.span[i].len};
        fa_buf copy = {0}; /* the pool that the text lies in may move */
        fa_buf_add(&copy, t->name.pool + t->name.span[i].off, a.len);
        a.text = copy.data;
        int rc = copy.failed ? no_memory(t, err) : fa_tok_add(t, &a, err);
        fa_buf_free(&copy);
        if (rc) return rc;
    }
    return FFAI_OK;
}

/* ---- the whole ---- */

static const struct kind_row *find_kind(const fa_gguf_value *model) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (model->n == strlen(kinds[i].model) && memcmp(model->data, kinds[i].model, model->n) == 0) return &kinds[i];
    return NULL;
}

static int read_ids(fa_tgguf *k, fa_error *err) {
    struct {
        const char *key;
        int32_t *id;
    } row[] = {{"tokenizer.ggml.bos_token_id", &k->t->bos},     {"tokenizer.ggml.eos_token_id", &k->t->eos},
               {"tokenizer.ggml.padding_token_id", &k->t->pad}, {"tokenizer.ggml.unknown_token_id", &k->t->unk},
               {"tokenizer.ggml.seperator_token_id", &k->sep},  {"tokenizer.ggml.cls_token_id", &k->cls}};
    int rc = FFAI_OK;
    for (size_t i = 0; i < sizeof row / sizeof *row && !rc; i++) rc = read_id(row[i].id, k->g, row[i].key, k->t, err);
    return rc;
}

static int put_around(fa_tgguf *k, fa_error *err) {
    fa_tok *t = k->t;
    int32_t first = t->bos >= 0 ? t->bos : k->cls, last = t->eos;
    bool bos = fa_tgguf_flag(k->g, "tokenizer.ggml.add_bos_token", k->bos) && first >= 0;
    bool eos = fa_tgguf_flag(k->g, "tokenizer.ggml.add_eos_token", k->eos) && last >= 0;
    if (!eos && fa_tgguf_flag(k->g, "tokenizer.ggml.add_sep_token", k->add_sep)) {
        last = k->sep >= 0 ? k->sep : t->eos;
        eos = last >= 0;
    }
    return fa_tok_wrap(t, &first, bos, &last, eos, err);
}

static int load(fa_tgguf *k, fa_error *err) {
    const fa_gguf_value *model = fa_gguf_find(k->g, "tokenizer.ggml.model");
    fa_tok *t = k->t;
    if (!model || model->type != FA_GGUF_STR)
        return fa_fail(err, FFAI_EFORMAT, "%s: the file has no tokenizer (tokenizer.ggml.model)", t->what);
    const struct kind_row *row = find_kind(model);
    if (!row)
        return fa_fail(err, FFAI_ENOTSUP, "%s: tokenizer.ggml.model \"%.*s\" is not supported", t->what,
                       (int)(model->n > 60 ? 60 : model->n), (const char *)model->data);
    k->bos = row->bos;
    k->eos = row->eos;
    k->add_sep = row->sep;
    int rc = fa_tgguf_array(&k->tokens, k->g, "tokenizer.ggml.tokens", true, 0, t, err);
    if (!rc && (!k->tokens || !k->tokens->n || k->tokens->n > INT32_MAX))
        rc = fa_fail(err, FFAI_EFORMAT, "%s: tokenizer.ggml.tokens is missing or empty", t->what);
    if (!rc) rc = fa_tgguf_array(&k->types, k->g, "tokenizer.ggml.token_type", false, k->tokens->n, t, err);
    if (!rc) rc = fa_tgguf_array(&k->scores, k->g, "tokenizer.ggml.scores", false, k->tokens->n, t, err);
    if (!rc) rc = read_tokens(t, k->tokens, k->types, row->how, err);
    if (!rc) rc = read_ids(k, err);
    if (!rc) rc = row->load(k, err);
    if (!rc) rc = read_added(t, k->types, err);
    if (!rc) rc = put_around(k, err);
    return rc ? rc : fa_tok_finish(t, err);
}

int fa_tok_from_gguf(fa_tok **out, const fa_gguf *g, fa_error *err) {
    fa_tgguf k = {.t = fa_tok_alloc("GGUF metadata"), .g = g, .sep = -1, .cls = -1};
    *out = NULL;
    int rc = k.t ? load(&k, err) : fa_fail(err, FFAI_ENOMEM, "GGUF metadata: no memory for the tokenizer");
    if (rc)
        fa_tok_free(k.t);
    else
        *out = k.t;
    return rc;
}
