/* The tokenizer as a whole: encoding runs added tokens -> normalizers -> normalized added tokens -> pre-tokenizers ->
 * BPE, then puts what the post-processor asks for around the ids. Also what both loaders share: allocation, the
 * matchers of added tokens, the cut in front of word beginnings. */
#include "text/bpe_int.h"
#include "text/spm.h"
#include "text/ucd.h"
#include "text/words.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one call ---- */

bool fa_enc_room(fa_enc *e, size_t k) {
    if (e->cap - e->n >= k) return true;
    size_t cap = e->cap + e->cap / 2 + k + 16;
    int32_t *p = (int32_t *)fa_realloc(e->ids, cap, sizeof *p);
    if (!p) return e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for %zu ids", cap), false;
    e->ids = p;
    e->cap = cap;
    return true;
}

static void enc_free(fa_enc *e) {
    if (!e) return;
    fa_free(e->ids);
    fa_words_free(&e->words);
    fa_free(e->cps);
    for (size_t i = 0; i < 2; i++) fa_buf_free(&e->norm[i]);
    for (size_t i = 0; i < FA_TOK_MAX_STEPS; i++) fa_buf_free(&e->pre[i]);
    fa_buf_free(&e->word);
    fa_buf_free(&e->path);
    fa_regex_run_free(e->re);
    fa_bpe_long_free(e->lw);
    fa_free(e);
}

/* The idle one of the tokenizer, whose word cache is warm, or a new one. */
static fa_enc *enc_take(const fa_tok *t) {
    fa_enc *e = atomic_exchange(&((fa_tok *)t)->spare, NULL);
    if (e) return e;
    e = FA_NEW(fa_enc);
    if (e && fa_words_init(&e->words)) return e;
    enc_free(e);
    return NULL;
}

/* Keeps the cache and small buffers for the next call. */
static void enc_give(const fa_tok *t, fa_enc *e) {
    enum { KEEP = 1 << 16 };
    fa_free(e->ids);
    e->ids = NULL;
    e->n = e->cap = 0;
    for (size_t i = 0; i < 2; i++)
        if (e->norm[i].cap > KEEP) fa_buf_free(&e->norm[i]);
    for (size_t i = 0; i < FA_TOK_MAX_STEPS; i++)
        if (e->pre[i].cap > KEEP) fa_buf_free(&e->pre[i]);
    if (e->path.cap > KEEP) fa_buf_free(&e->path);
    if (e->n_cps > KEEP) {
        fa_free(e->cps);
        e->cps = NULL;
        e->n_cps = 0;
    }
    fa_bpe_long_free(e->lw);
    e->lw = NULL;
    enc_free(atomic_exchange(&((fa_tok *)t)->spare, e));
}

/* ---- added tokens in the text ---- */

/* Longest added token at s: its index, or -1; *len its length. */
static int64_t match_at(const fa_trie *t, const char *s, const char *end, size_t *len) {
    int64_t found = -1;
    uint32_t at = t->root[(uint8_t)*s];
    for (const char *p = s + 1; at; p++) {
        if (t->node[at].added1) {
            found = t->node[at].added1 - 1;
            *len = (size_t)(p - s);
        }
        if (p == end) break;
        for (at = t->node[at].child; at && t->node[at].byte != (uint8_t)*p;) at = t->node[at].sibling;
    }
    return found;
}

static size_t char_before(const char *s, size_t at, uint32_t *cp) {
    size_t k = 1;
    while (k < at && ((unsigned char)s[at - k] & 0xC0) == 0x80) k++;
    fa_utf8_decode(s + at - k, k, cp);
    return k;
}

static bool word_at(const char *s, size_t n, size_t at) {
    uint32_t cp;
    return at < n && (fa_utf8_decode(s + at, n - at, &cp), fa_ucd(cp) & FA_UCD_WORD);
}

static bool word_before(const char *s, size_t at) {
    uint32_t cp;
    return at && (char_before(s, at, &cp), fa_ucd(cp) & FA_UCD_WORD);
}

/* White space beside a match belongs to it when it asks for that; not what is before `from`. */
static void take_space(const fa_added *a, const char *s, size_t n, size_t from, size_t *start, size_t *stop) {
    uint32_t cp;
    if (a->lstrip && *start < from) *start = from;
    while (a->lstrip && *start > from) {
        size_t k = char_before(s, *start, &cp);
        if (!(fa_ucd(cp) & FA_UCD_SPACE)) break;
        *start -= k;
    }
    while (a->rstrip && *stop < n) {
        size_t k = (size_t)fa_utf8_decode(s + *stop, n - *stop, &cp);
        if (!(fa_ucd(cp) & FA_UCD_SPACE)) break;
        *stop += k;
    }
}

typedef void on_gap(fa_enc *e, const char *s, size_t n, size_t zero, unsigned flags);

static inline size_t zero_at(size_t zero, size_t at) { return zero > at ? zero - at : 0; }

/* Puts the ids of the added tokens of one matcher and hands the text between them on. */
static void split_added(fa_enc *e, const fa_trie *trie, const char *s, size_t n, size_t zero, unsigned flags,
                        on_gap *gap) {
    size_t from = 0, len = 0;
    for (size_t i = 0; trie->n && (i = fa_trie_next(trie, s, i, n)) < n && !e->rc; i++) {
        int64_t k = match_at(trie, s + i, s + n, &len);
        if (k < 0) continue;
        const fa_added *a = &e->t->added[k];
        size_t start = i, stop = i + len;
        i = stop - 1;
        if (a->special && (flags & FA_TOK_NO_PARSE_SPECIAL)) continue;
        if (a->single_word && (word_before(s, start) || word_at(s, n, stop))) continue;
        take_space(a, s, n, from, &start, &stop);
        if (a->lstrip && start < from) start = from;
        if (start >= stop) continue; /* white space that the token before has taken: the reference has nothing there */
        if (from < start) gap(e, s + from, start - from, zero_at(zero, from), flags);
        if (!fa_enc_room(e, 1)) return;
        if (start < stop) e->ids[e->n++] = a->id; /* all of it may belong to the token before: then it is none */
        from = stop; /* may go back when white space is an added token too, as in the reference */
    }
    if (from < n && !e->rc) gap(e, s + from, n - from, zero_at(zero, from), flags);
}

static void cut_words(fa_enc *e, const char *s, size_t n, size_t zero, unsigned flags) {
    (void)flags;
    fa_pre_run(e, s, n, zero);
}

/* SentencePiece makes one of unknown tokens that follow each other. */
static void fuse_unknown(fa_enc *e, size_t from) {
    size_t to = from;
    for (size_t i = from; i < e->n; i++)
        if (i == from || e->ids[i] != e->t->model_unk || e->ids[i - 1] != e->t->model_unk) e->ids[to++] = e->ids[i];
    e->n = to;
}

static void normalize(fa_enc *e, const char *s, size_t n, size_t zero, unsigned flags) {
    const char *out, *lim = e->lim;
    size_t n_out;
    if (e->t->cut.spaces && !(e->t->spm && e->t->spm->fuse_unk)) {
        fa_cut_text(e, s, n);
        return;
    }
    if (fa_norm_run(e, s, n, &out, &n_out, &zero) || !n_out) return;
    if (out < s || out > s + n) e->lim = out + n_out;
    size_t before = e->n;
    split_added(e, &e->t->trie_norm, out, n_out, zero, flags, cut_words);
    if (e->t->spm && e->t->spm->fuse_unk) fuse_unknown(e, before);
    e->lim = lim;
}

/* ---- encode ---- */

static size_t first_char(const char *s, size_t n) {
    uint32_t cp;
    return (size_t)fa_utf8_decode(s, n, &cp);
}

static void put_ids(fa_enc *e, const int32_t *ids, size_t n) {
    if (!n || e->rc || !fa_enc_room(e, n)) return;
    memcpy(e->ids + e->n, ids, n * sizeof *ids);
    e->n += n;
}

/* What comes behind the ids of the sequence, e->ids[from..). */
static void post_process(fa_enc *e, size_t from, unsigned flags) {
    const fa_post *p = &e->t->post;
    size_t n = p->dropped ? 0 : e->n - from;
    if (p->dropped) e->n = from;
    for (size_t i = 0; i < p->n_again && !e->rc; i++) {
        if (p->again[i] >= 0) {
            if (flags & FA_TOK_SPECIAL) put_ids(e, &p->again[i], 1);
        } else if (n && fa_enc_room(e, n)) {
            memcpy(e->ids + e->n, e->ids + from, n * sizeof *e->ids);
            e->n += n;
        }
    }
    if (flags & FA_TOK_SPECIAL) put_ids(e, p->after, p->n_after);
}

/* Where the first ill-formed byte of s is, n if there is none. */
static size_t valid_prefix(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t w;
        if (n - i >= 8 && (memcpy(&w, s + i, 8), !(w & UINT64_C(0x8080808080808080)))) {
            i += 8;
            continue;
        }
        if ((unsigned char)s[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t cp;
        size_t k = (size_t)fa_utf8_decode(s + i, n - i, &cp);
        if (cp == 0xFFFD && !(k == 3 && memcmp(s + i, "\xEF\xBF\xBD", 3) == 0)) return i;
        i += k;
    }
    return n;
}

/* Copies s with U+FFFD for what is ill-formed. */
void fa_tok_repair(fa_buf *b, const char *s, size_t n) {
    while (n && !b->failed) {
        size_t k = valid_prefix(s, n);
        uint32_t cp;
        fa_buf_add(b, s, k);
        s += k;
        n -= k;
        if (!n) break;
        fa_buf_add(b, "\xEF\xBF\xBD", 3);
        k = (size_t)fa_utf8_decode(s, n, &cp);
        s += k;
        n -= k;
    }
}

int fa_tok_encode(const fa_tok *t, const char *text, size_t n, unsigned flags, int32_t **ids, size_t *n_ids,
                  fa_error *err) {
    fa_buf fixed = {0};
    *ids = NULL;
    *n_ids = 0;
    if (!n) text = "";
    if (valid_prefix(text, n) < n) {
        fa_tok_repair(&fixed, text, n);
        text = fixed.data;
        n = fixed.len;
    }
    fa_enc *e = fixed.failed ? NULL : enc_take(t);
    if (!e) {
        fa_buf_free(&fixed);
        return fa_fail(err, FFAI_ENOMEM, "tokenizer: no memory to encode %zu bytes", n);
    }
    if (t->plain_special && !(flags & FA_TOK_PARSE_SPECIAL)) flags |= FA_TOK_NO_PARSE_SPECIAL;
    e->t = t;
    e->rc = FFAI_OK;
    e->words.n_pend = 0;
    e->err = err;
    e->lim = text + n;
    fa_regex_run_begin(e->re);
    fa_enc_room(e, n / 3 + 16);
    if (flags & FA_TOK_SPECIAL) put_ids(e, t->post.before, t->post.n_before);
    size_t from = e->n;
    if (n && !e->rc) split_added(e, &t->trie_raw, text, n, first_char(text, n), flags, normalize);
    post_process(e, from, flags);
    int rc = e->rc;
    if (!rc && e->n) {
        int32_t *p = (int32_t *)fa_realloc(e->ids, e->n, sizeof *p);
        *ids = p ? p : e->ids;
        *n_ids = e->n;
        e->ids = NULL;
    }
    if (rc)
        enc_free(e);
    else
        enc_give(t, e);
    fa_buf_free(&fixed);
    return rc;
}

/* ---- what loaders share ---- */

fa_tok *fa_tok_alloc(const char *what) {
    fa_tok *t = FA_NEW(fa_tok);
    if (!t) return NULL;
    t->bos = t->eos = t->pad = t->unk = t->bpe.unk = t->uni.unk = t->wp.unk = t->model_unk = -1;
    memset(t->bpe.first, 0xFF, sizeof t->bpe.first);
    memset(t->bpe.byte_token, 0xFF, sizeof t->bpe.byte_token);
    t->what = fa_strdup(what);
    if (t->what) return t;
    fa_tok_free(t);
    return NULL;
}

void fa_tok_free(fa_tok *t) {
    if (!t) return;
    enc_free(atomic_exchange(&t->spare, NULL));
    fa_strtab_free(&t->name);
    fa_strtab_free(&t->raw);
    fa_strtab_free(&t->shown);
    fa_unigram_free(&t->uni);
    fa_wordpiece_free(&t->wp);
    fa_free(t->bpe.pair);
    fa_free(t->bpe.pair_bits);
    fa_free(t->bpe.rank_to);
    fa_free(t->bpe.pair_ascii);
    fa_free(t->bpe.id_rank);
    fa_free(t->cut.wide);
    fa_free(t->bpe.unused);
    fa_free(t->cut.stop);
    fa_free(t->bpe.prefix);
    fa_free(t->bpe.suffix);
    for (size_t i = 0; i < t->n_added; i++) fa_free(t->added[i].text);
    fa_free(t->added);
    fa_smap_free(&t->added_id);
    fa_free(t->special);
    fa_trie_free(&t->trie_raw);
    fa_trie_free(&t->trie_norm);
    fa_spm_free(t->spm);
    for (size_t i = 0; i < FA_TOK_MAX_STEPS; i++) {
        fa_free(t->norm[i].from);
        fa_free(t->norm[i].to);
        fa_regex_free(t->norm[i].re);
        fa_charsmap_free(t->norm[i].map);
        fa_free(t->pre[i].text);
        fa_regex_free(t->pre[i].re);
        fa_free(t->dec[i].from);
        fa_free(t->dec[i].to);
        fa_regex_free(t->dec[i].re);
    }
    fa_free(t->post.before);
    fa_free(t->post.after);
    fa_free(t->post.again);
    fa_free(t->what);
    fa_free(t);
}

/* The matcher entry of one added token. Normalized ones are matched in normalized text, so their content is normalized
 * too; that is also how the reference spells them from then on, and a spelling that is not the content is not special
 * to it. */
static int build_matcher(fa_tok *t, size_t i, fa_enc *e, fa_error *err) {
    const fa_added *a = &t->added[i];
    const char *s = a->text;
    size_t n = a->len;
    bool same = true;
    if (a->spelled_normalized && t->n_norm && !t->spm) {
        size_t zero = 0;
        int rc = fa_norm_run(e, s, n, &s, &n, &zero);
        if (rc) return rc;
        same = n == a->len && memcmp(s, a->text, n) == 0;
    }
    if (!fa_trie_put(a->normalized ? &t->trie_norm : &t->trie_raw, a->normalized ? s : a->text,
                     a->normalized ? n : a->len, (uint32_t)i) ||
        (!same && !fa_strtab_set(&t->shown, (uint32_t)a->id, s, n)))
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the added tokens", t->what);
    return FFAI_OK;
}

/* A token is special by what it is spelled like outwards: the content of any special token will do. */
static bool special_by_name(const fa_tok *t, int32_t id) {
    size_t len;
    uint32_t i;
    const char *s = fa_tok_piece(t, id, &len);
    return s && fa_smap_get(&t->added_id, s, len, &i) && t->added[i].special;
}

static void mark_special(fa_tok *t) {
    for (size_t i = 0; i < t->n_added; i++) t->special[t->added[i].id] = special_by_name(t, t->added[i].id);
    if (t->kind != FA_MODEL_UNIGRAM || !t->n_added) return;
    for (size_t i = 0; i < t->name.n_id; i++) /* whose vocabulary may spell several tokens alike */
        if (!t->special[i]) t->special[i] = special_by_name(t, (int32_t)i);
}

static int build_matchers(fa_tok *t, fa_error *err) {
    fa_enc *e = FA_NEW(fa_enc);
    int rc = e ? FFAI_OK : fa_fail(err, FFAI_ENOMEM, "%s: no memory for the added tokens", t->what);
    if (e) e->t = t;
    if (e) e->err = err;
    for (size_t i = 0; i < t->n_added && !rc; i++) rc = build_matcher(t, i, e, err);
    enc_free(e);
    return rc;
}

static void find_byte_tokens(fa_tok *t) {
    t->bpe.all_bytes = true;
    for (unsigned c = 0; c < 256; c++) {
        char s[8];
        snprintf(s, sizeof s, "<0x%02X>", c);
        t->bpe.byte_token[c] = fa_strtab_find(&t->name, s, 6);
        if (t->bpe.byte_token[c] < 0) t->bpe.all_bytes = false;
    }
}

/* Tokens that are looked for from every byte of a text make it cost up to their length for each byte: a file must not
 * bring one of megabytes. Merges do not look that way. */
enum { MAX_MATCHED = 1024 };

static int too_long(const fa_tok *t, size_t id, size_t len, fa_error *err) {
    return fa_fail(err, FFAI_ELIMIT, "%s: token %zu has %zu bytes, the limit for its kind is %d", t->what, id, len,
                   MAX_MATCHED);
}

static int check_lengths(const fa_tok *t, fa_error *err) {
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].len > MAX_MATCHED) return too_long(t, (size_t)t->added[i].id, t->added[i].len, err);
    for (size_t i = 0; t->kind != FA_MODEL_BPE && t->kind != FA_MODEL_WORDLEVEL && i < t->name.n_id; i++)
        if (t->name.span[i].off != UINT32_MAX && t->name.span[i].len > MAX_MATCHED)
            return too_long(t, i, t->name.span[i].len, err);
    return 0;
}

int fa_tok_finish(fa_tok *t, fa_error *err) {
    t->special = FA_NEWN(uint8_t, t->name.n_id + 1);
    if (!t->special) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", t->what);
    if (t->bpe.byte_fallback) find_byte_tokens(t);
    for (unsigned c = 0; c < (t->bpe.byte_level ? 256u : 128u); c++) {
        char s[2] = {(char)c};
        int n = t->bpe.byte_level ? fa_char_of_byte(c, s) : 1;
        t->bpe.first[c] = fa_strtab_find(&t->name, s, (size_t)n);
    }
    int rc = check_lengths(t, err);
    if (!rc) rc = build_matchers(t, err);
    mark_special(t);
    if (!rc) rc = fa_cut_build(t, err);
    return rc || fa_bpe_finish(&t->bpe) ? rc : fa_fail(err, FFAI_ENOMEM, "%s: no memory", t->what);
}

/* ---- look-ups ---- */

size_t fa_tok_size(const fa_tok *t) { return t->name.n_id; }

const char *fa_tok_piece(const fa_tok *t, int32_t id, size_t *len) {
    const fa_strtab *from = fa_strtab_has(&t->shown, id) ? &t->shown : &t->name;
    if (len) *len = 0;
    if (!fa_strtab_has(from, id)) return NULL;
    if (len) *len = from->span[id].len;
    return from->pool + from->span[id].off;
}

int32_t fa_tok_id(const fa_tok *t, const char *piece, size_t len) {
    uint32_t i;
    if (fa_smap_get(&t->added_id, piece, len, &i)) return t->added[i].id;
    return fa_strtab_find(&t->name, piece, len);
}

bool fa_tok_is_special(const fa_tok *t, int32_t id) { return id >= 0 && (size_t)id < t->name.n_id && t->special[id]; }
int32_t fa_tok_bos(const fa_tok *t) { return t->bos; }
int32_t fa_tok_eos(const fa_tok *t) { return t->eos; }
int32_t fa_tok_pad(const fa_tok *t) { return t->pad; }
int32_t fa_tok_unk(const fa_tok *t) { return t->unk >= 0 ? t->unk : t->bpe.unk >= 0 ? t->bpe.unk : t->model_unk; }

void fa_tok_describe(const fa_tok *t, char *text, size_t cap) {
    size_t n = 0;
    for (size_t i = 0; i < t->name.n_id; i++) n += t->name.span[i].off != UINT32_MAX;
    static const char *const kind[] = {"BPE", "Unigram", "WordPiece", "WordLevel", "RWKV", "PLaMo"};
    snprintf(text, cap, "%s%s, %zu tokens, %zu of them added",
             t->kind != FA_MODEL_BPE ? t->spm ? "SentencePiece " : ""
             : t->bpe.byte_level     ? t->bpe.by_score ? "tiktoken " : "byte-level "
             : t->bpe.by_score       ? "SentencePiece "
                                     : "character ",
             kind[t->kind], n, t->n_added);
}
