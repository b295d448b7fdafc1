/* Where text may be cut before BPE, so that words stay short. A merge makes a token, so two characters that stand side
 * by side in no token that a merge makes are never joined, and text may be cut between them. For a tokenizer without a
 * pre-tokenizer (SentencePiece) that alone is what a pre-tokenizer does elsewhere: words are short, few, and found in
 * the word cache; without it a whole text would be one word.
 *
 * The normalizer of these tokenizers puts U+2581 for each space, three bytes for one. Where it does only that, it does
 * not run at all: spaces are read as that sign (`spaces`). */
#include "text/words.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

static const char sign[] = "\xE2\x96\x81"; /* U+2581 */
enum { SIGN = 0x2581, WIDE_BITS = 20 };

static inline uint32_t wide_bit(uint32_t a, uint32_t b) {
    uint64_t h = ((uint64_t)a << 21 ^ b) * UINT64_C(0x9E3779B97F4A7C15);
    return (uint32_t)(h >> (64 - WIDE_BITS));
}

/* The character at s; the usual lengths here, for speed. */
static inline uint32_t char_at(const char *s, const char *end, size_t *len) {
    const unsigned char *u = (const unsigned char *)s;
    uint32_t cp;
    if (*u < 0x80) return *len = 1, *u;
    if ((*u & 0xF0) == 0xE0 && end - s >= 3)
        return *len = 3, (uint32_t)(u[0] & 0x0F) << 12 | (uint32_t)(u[1] & 0x3F) << 6 | (u[2] & 0x3F);
    if ((*u & 0xE0) == 0xC0 && end - s >= 2) return *len = 2, (uint32_t)(u[0] & 0x1F) << 6 | (u[1] & 0x3F);
    *len = (size_t)fa_utf8_decode(s, (size_t)(end - s), &cp);
    return cp;
}

/* ---- building ---- */

static void put_join(fa_cut *c, uint32_t a, uint32_t b) {
    if ((a | b) < 0x80) {
        c->stop[b << 8 | a] = 0;
    } else {
        uint32_t bit = wide_bit(a, b);
        c->wide[bit >> 6] |= UINT64_C(1) << (bit & 63);
    }
}

/* Byte tokens ("<0x41>") that are merged are not what they are spelled as. */
static bool has_byte_token(const char *s, const char *end) {
    for (; end - s >= 6; s++)
        if (memcmp(s, "<0x", 3) == 0 && s[5] == '>') return true;
    return false;
}

/* Which ids merges make. */
static uint8_t *made_by_merges(const fa_tok *t) {
    uint8_t *made = FA_NEWN(uint8_t, t->name.n_id + 1);
    if (!made) return NULL;
    for (size_t i = 0; !t->bpe.by_score && i < t->bpe.n_rank; i++) made[t->bpe.rank_to[i]] = 1;
    for (size_t i = 0; t->bpe.by_score && i < t->name.n_id; i++) made[i] = t->bpe.id_rank[i] != UINT32_MAX;
    return made;
}

/* False: a token among them is made of byte tokens. */
static bool put_tokens(fa_tok *t, const uint8_t *made) {
    for (size_t i = 0; i < t->name.n_id; i++) {
        if (!made[i] || t->name.span[i].off == UINT32_MAX) continue;
        const char *s = t->name.pool + t->name.span[i].off, *end = s + t->name.span[i].len;
        size_t len;
        if (s == end) continue;
        uint32_t a = char_at(s, end, &len), b;
        bool angle = a == '<';
        for (s += len; s < end; s += len, a = b) {
            b = char_at(s, end, &len);
            angle |= b == '<';
            put_join(&t->cut, a, b);
        }
        s = end - t->name.span[i].len;
        if (angle && t->name.span[i].len > 6 && has_byte_token(s, end)) return false;
    }
    return true;
}

/* Characters without a token. Two of them may become one unknown token: no cut between them. Or they are left out, and
 * what stood around them may be joined: no cut beside them. Of other than ASCII characters it is not known what they
 * are, but for the word sign. */
static void join_unknown(fa_tok *t, bool left_out) {
    const int32_t *first = t->bpe.first;
    bool has_sign = fa_strtab_find(&t->name, sign, 3) >= 0;
    t->cut.known = has_sign ? SIGN : UINT32_MAX;
    t->cut.left_out = left_out;
    for (unsigned a = 0; a < 128; a++) {
        for (unsigned b = 0; b < 128; b++)
            if (left_out ? first[a] < 0 || first[b] < 0 : first[a] < 0 && first[b] < 0) put_join(&t->cut, a, b);
        if (first[a] < 0 && left_out) {
            put_join(&t->cut, a, SIGN);
            put_join(&t->cut, SIGN, a);
        }
    }
}

/* Nothing happens to text but that spaces become the sign, and maybe one is put in front. */
static bool only_spaces(const fa_tok *t, bool *first) {
    size_t n = t->n_norm;
    const fa_norm *m = t->norm;
    *first = n == 2 && m->kind == FA_NORM_PREPEND && m->n_to == 3 && memcmp(m->to, sign, 3) == 0;
    m += *first;
    if (n != 1u + *first || t->trie_norm.n || fa_strtab_find(&t->name, sign, 3) < 0) return false;
    for (size_t i = 0; i < t->n_pre; i++) /* a cut at spaces, where there are none any more */
        if (t->pre[i].kind != FA_PRE_LITERAL || t->pre[i].invert || !t->pre[i].n_text ||
            !memchr(t->pre[i].text, ' ', t->pre[i].n_text))
            return false;
    return m->kind == FA_NORM_REPLACE && m->n_from == 1 && m->from[0] == ' ' && m->n_to == 3 &&
           memcmp(m->to, sign, 3) == 0;
}

/* A space is what the sign is; a token with a space is never made of text. */
static void spaces_as_sign(fa_cut *c) {
    for (unsigned a = 0; a < 128; a++) {
        uint32_t to = wide_bit(a, SIGN), from = wide_bit(SIGN, a), both = wide_bit(SIGN, SIGN);
        if (a == ' ') to = from = both;
        if (c->wide[to >> 6] >> (to & 63) & 1) put_join(c, a, ' ');
        if (c->wide[from >> 6] >> (from & 63) & 1) put_join(c, ' ', a);
    }
}

int fa_cut_build(fa_tok *t, fa_error *err) {
    const fa_bpe *m = &t->bpe;
    fa_cut *c = &t->cut;
    if (t->kind != FA_MODEL_BPE || m->byte_level || m->ignore_merges || m->prefix || m->suffix) return FFAI_OK;
    if (m->by_score ? !m->id_rank : !m->n_pair) return FFAI_OK;
    if (t->n_pre == FA_TOK_MAX_STEPS || (m->unk >= 0 && m->byte_fallback && !m->all_bytes)) return FFAI_OK;
    uint8_t *made = made_by_merges(t);
    c->wide = FA_NEWN(uint64_t, ((size_t)1 << WIDE_BITS) / 64);
    c->stop = FA_NEWN(uint8_t, 128 * 256);
    if (!made || !c->wide || !c->stop) {
        fa_free(made);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", t->what);
    }
    memset(c->stop, 1, 128 * 256);
    bool ok = put_tokens(t, made);
    fa_free(made);
    if (!ok) return FFAI_OK;
    c->spaces = only_spaces(t, &c->sign_first);
    if (c->spaces) {
        spaces_as_sign(c);
        t->bpe.first[' '] = fa_strtab_find(&t->name, sign, 3);
    }
    bool bytes = m->byte_fallback && m->all_bytes, left_out = m->unk < 0 && !m->by_score;
    if (!bytes && (left_out || (m->unk >= 0 && m->fuse_unk))) join_unknown(t, left_out);
    if (!c->spaces) t->pre[t->n_pre++].kind = FA_PRE_CUT;
    return FFAI_OK;
}

/* ---- running ---- */

static inline bool may_join(const fa_cut *c, uint32_t a, uint32_t b) {
    if ((a | b) < 0x80) return !c->stop[b << 8 | a];
    if (c->spaces && a == ' ') a = SIGN;
    if (c->spaces && b == ' ') b = SIGN;
    if (c->known && a != c->known && b != c->known) return true;
    if (c->left_out && ((a >= 0x80 && a != SIGN) || (b >= 0x80 && b != SIGN))) return true;
    uint32_t bit = wide_bit(a, b);
    return c->wide[bit >> 6] >> (bit & 63) & 1;
}

/* End of the word that begins with the character a, up to q. */
static const char *word_end(const fa_cut *c, uint32_t a, const char *q, const char *end) {
    for (size_t len; q < end; q += len) {
        uint32_t b = char_at(q, end, &len);
        if (!may_join(c, a, b)) break;
        a = b;
    }
    return q;
}

enum { BLOCK = 32 };

/* Whether s[-1] .. s[BLOCK - 1] are all ASCII. */
static inline bool ascii_block(const char *s) {
    uint64_t w[4];
    memcpy(w, s, sizeof w);
    return !((w[0] | w[1] | w[2] | w[3]) & UINT64_C(0x8080808080808080)) && !(s[-1] & 0x80);
}

/* Bit i: a cut in front of s[i]. Nothing here depends on where words begin, or waits for what was found before. */
static inline uint32_t block_cuts(const fa_cut *c, const char *s) {
    uint32_t cuts = 0;
    for (int i = 0; i < BLOCK; i++) {
        uint16_t ab;
        memcpy(&ab, s + i - 1, 2);
        cuts |= (uint32_t)c->stop[ab] << i;
    }
    return cuts;
}

void fa_cut_run(fa_enc *e, const char *s, size_t n) {
    const fa_cut *c = &e->t->cut;
    const char *end = s + n, *p = s; /* a word begins at s; up to p all is known */
    size_t len;
    if (!n) return;
    uint32_t a = char_at(p, end, &len), b;
    for (p += len; p < end && !e->rc;) {
        if (end - p >= BLOCK && ascii_block(p)) {
            for (uint32_t cuts = block_cuts(c, p); cuts; cuts &= cuts - 1) {
                const char *q = p + __builtin_ctz(cuts);
                fa_words_put(e, s, (size_t)(q - s));
                s = q;
            }
            p += BLOCK;
            a = (unsigned char)p[-1];
            continue;
        }
        for (const char *stop = end - p > BLOCK ? p + BLOCK : end; p < stop; p += len, a = b) {
            b = char_at(p, end, &len);
            if (may_join(c, a, b)) continue;
            fa_words_put(e, s, (size_t)(p - s));
            s = p;
        }
    }
    if (!e->rc) fa_words_put(e, s, (size_t)(end - s));
}

void fa_cut_text(fa_enc *e, const char *s, size_t n) {
    const fa_cut *c = &e->t->cut;
    if (c->sign_first) { /* the sign and the word that may be joined to it */
        const char *end = s + n, *q = word_end(c, ' ', s, end);
        fa_buf *b = &e->pre[0];
        const char *lim = e->lim;
        b->len = 0;
        fa_buf_add(b, " ", 1);
        fa_buf_add(b, s, (size_t)(q - s));
        if (b->failed) {
            e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for %zu bytes of text", n);
            return;
        }
        e->lim = b->data + b->len;
        fa_words_put(e, b->data, b->len);
        fa_words_flush(e);
        e->lim = lim;
        s = q;
        n = (size_t)(end - q);
    }
    fa_cut_run(e, s, n);
    fa_words_flush(e);
}
