/* Inside of the tokenizers: what a fa_tok is made of, and the contract between the loaders (tok_hf.c, tok_gguf.c),
 * which fill it, and the pipeline (tok.c: added tokens -> norm.c -> pretok.c -> the model), which runs it. A fa_tok
 * changes only while it is loaded; what one call to encode needs is in its fa_enc. */
#ifndef FA_TEXT_TOK_INT_H
#define FA_TEXT_TOK_INT_H

#include "base/smap.h"
#include "text/charsmap.h"
#include "text/models.h"
#include "text/tok.h"

#include <stdatomic.h>

/* ---- strtab.c: strings with ids, both ways ---- */

typedef struct fa_strslot {
    uint64_t head; /* up to 8 bytes: the string, zero padded; longer: upper half of the hash, then place in the pool */
    uint32_t id1;  /* id + 1, 0 = free */
    uint32_t len;
} fa_strslot;

typedef struct fa_span {
    uint32_t off, len; /* in the pool; off UINT32_MAX = no string */
} fa_span;

typedef struct fa_strtab {
    char *pool; /* the strings, each NUL-terminated */
    size_t pool_len, pool_cap;
    fa_span *span; /* by id */
    size_t n_id, cap_id;
    fa_strslot *slot;
    size_t n_slot; /* power of two or 0 */
    uint32_t max_len;
    bool doubles; /* some string has two ids */
} fa_strtab;

/* The largest id a file may use is bounded by what it holds, so that one lying number does not become gigabytes. */
enum { FA_TOK_ID_SLACK = 1 << 20 };

void fa_strtab_free(fa_strtab *t);
/* Room for so many ids and bytes in all (never an error: they are only expected), and giving back what was not used. */
void fa_strtab_reserve(fa_strtab *t, size_t n_id, size_t bytes);
void fa_strtab_shrink(fa_strtab *t);
/* Sets the string of an id (the last call for an id wins); ids may come in any order. False: out of memory. */
bool fa_strtab_set(fa_strtab *t, uint32_t id, const char *s, size_t len);
/* Builds the way back, string to id, over all ids for which keep[id] is set (all when keep is NULL). Of equal strings
 * the highest id wins. */
bool fa_strtab_index(fa_strtab *t, const uint8_t *keep);
int32_t fa_strtab_find(const fa_strtab *t, const char *s, size_t len);
typedef struct fa_strkey {
    uint64_t head, hash; /* head: the first 8 bytes, zero padded */
} fa_strkey;

/* The two halves of a look-up, so that loaders can have many in flight: the first fetches what the second reads. Up to
 * lim bytes may be read; lim may be s + len. */
fa_strkey fa_strtab_begin(const fa_strtab *t, const char *s, size_t len, const char *lim);
int32_t fa_strtab_end(const fa_strtab *t, const char *s, size_t len, fa_strkey key);
/* Between the two, where there is time: fetches the pool for a string of more than 8 bytes. */
void fa_strtab_fetch_long(const fa_strtab *t, fa_strkey key);
/* Whether the string of an id is a followed by b, which have these keys. */
bool fa_strtab_is(const fa_strtab *t, uint32_t id, const char *a, size_t na, fa_strkey ka, const char *b, size_t nb,
                  fa_strkey kb);
static inline bool fa_strtab_has(const fa_strtab *t, int64_t id) {
    return id >= 0 && (size_t)id < t->n_id && t->span[id].off != UINT32_MAX;
}

/* ---- bpe.c: merging ---- */

typedef struct fa_bpe {
    bool by_score; /* merge what spells a token, best score first (SentencePiece); otherwise the pairs of a merge list,
                      lowest rank first */
    bool byte_level;    /* words are bytes and begin as one token per byte; otherwise one per character */
    bool byte_fallback; /* characters without a token become byte tokens */
    bool ignore_merges; /* a word that is a token is that token */
    bool fuse_unk;
    int32_t unk;             /* -1 none */
    int32_t first[256];      /* byte level: token of a byte; otherwise of an ASCII character; -1 none */
    int32_t byte_token[256]; /* "<0x41>"; -1 none */
    bool all_bytes;          /* no byte_token is missing */
    uint64_t *pair;          /* open addressing; a << id_bits | b, then rank + 1 in the low rank_bits; 0 = free */
    size_t n_pair;           /* slots, a power of two or 0 */
    unsigned id_bits, rank_bits;
    uint64_t *pair_bits;  /* n_pair * 4 bits: a pair whose bit is not set is not in the table, which is far larger */
    uint32_t *rank_to;    /* the token that the pair of a rank becomes */
    uint32_t *pair_ascii; /* [b << 7 | a]: rank of the pair of two ASCII characters, UINT32_MAX none */
    uint32_t n_rank;
    uint8_t *unused;       /* by_score, by id: a token that is taken apart again in the end; NULL nearly always */
    uint32_t *id_rank;     /* by_score: rank of a token by id, UINT32_MAX = text never becomes this token */
    const fa_strtab *word; /* spelling of tokens as the text has it (byte level: bytes); NULL where it is not needed */
    char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix; NULL for none */
} fa_bpe;

typedef struct fa_enc fa_enc;

/* Room for n pairs with ranks below n, which become to[rank]; takes `to` over. */
bool fa_bpe_reserve_pairs(fa_bpe *m, size_t n, uint32_t *to);
void fa_bpe_prefetch_pair(const fa_bpe *m, uint32_t a, uint32_t b);
/* A pair that is there already takes the new rank, as in the reference. False: more tokens than the table can tell
 * apart (with a million merges: four million). */
bool fa_bpe_put_pair(fa_bpe *m, uint32_t a, uint32_t b, uint32_t rank);
/* After `first` is known. False: out of memory. */
bool fa_bpe_finish(fa_bpe *m);
/* Appends the tokens of one word to e->ids. */
void fa_bpe_merge(fa_enc *e, const char *s, size_t n);

/* ---- added.c: tokens that are cut out of the text before anything else ---- */

typedef struct fa_added {
    char *text; /* as the file has it; the matcher of normalized tokens holds the normalized form */
    size_t len;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool spelled_normalized; /* tok_hf.c: an entry of the same content is normalized, so that decoding spells it so */
} fa_added;

typedef struct fa_trie_node {
    uint32_t child, sibling; /* 0 = none */
    uint32_t added1;         /* index of the added token that ends here + 1 */
    uint8_t byte;
} fa_trie_node;

enum { FA_TRIE_FIRST = 6 };

typedef struct fa_trie {
    fa_trie_node *node; /* node[0] is unused */
    size_t n, cap;
    uint32_t root[256];
    uint8_t first[FA_TRIE_FIRST]; /* the bytes that have a root, while they are few */
    size_t n_first;
} fa_trie;

/* The first place in s[i..n) where a token may begin; n if there is none. */
size_t fa_trie_next(const fa_trie *t, const char *s, size_t i, size_t n);
bool fa_trie_put(fa_trie *t, const char *s, size_t len, uint32_t index);
void fa_trie_free(fa_trie *t);

/* ---- regex.c: PCRE2 for patterns that have no scanner ---- */

typedef struct fa_regex fa_regex;
typedef struct fa_regex_run fa_regex_run; /* per call: match data and JIT stack */

/* The pattern is in Oniguruma's syntax (regex_syntax.c). */
int fa_regex_new(fa_regex **out, const char *pattern, size_t len, const char *what, fa_error *err);
/* Writes it in PCRE2's. */
void fa_regex_translate(fa_buf *out, const char *pattern, size_t len);
void fa_regex_free(fa_regex *r);
void fa_regex_run_free(fa_regex_run *r);
/* The time that patterns may take counts from here. NULL is fine. */
void fa_regex_run_begin(fa_regex_run *r);
/* An iterator over the matches of a text, zeroed before the first. No empty match directly behind another match. */
typedef struct fa_regex_at {
    size_t a, b; /* the match */
    size_t pos;  /* where the search goes on */
    bool any;
} fa_regex_at;
/* The next match in s[0..n): 1 found, 0 no more, <0 error. *run is made when it is NULL. */
int fa_regex_next(const fa_regex *r, fa_regex_run **run, const char *s, size_t n, fa_regex_at *at, fa_error *err);

/* ---- scan.c: hand-written forms of the pre-tokenizer patterns that published models use ---- */

/* End of the match that begins at p (p < end, valid UTF-8), or p when none begins there. */
typedef const char *fa_scan(const char *p, const char *end);
fa_scan *fa_scan_find(const char *pattern, size_t len);
/* fa_scan of the pattern that ByteLevel uses itself. */
const char *fa_scan_gpt2(const char *p, const char *end);
/* fa_scan of the Whitespace pre-tokenizer. */
const char *fa_scan_words(const char *p, const char *end);

/* ---- norm.c ---- */

typedef enum fa_norm_kind {
    FA_NORM_PREPEND,
    FA_NORM_REPLACE,
    FA_NORM_REPLACE_RE,
    FA_NORM_UNICODE,
    FA_NORM_LOWER,
    FA_NORM_STRIP,
    FA_NORM_CLEAN,         /* BertNormalizer's clean_text: control characters go, white space becomes a space */
    FA_NORM_CHINESE,       /* spaces around CJK ideographs */
    FA_NORM_DROP_MARKS,    /* BertNormalizer's strip_accents, behind NFD: nonspacing marks go */
    FA_NORM_STRIP_ACCENTS, /* combining marks go */
    FA_NORM_NMT,
    FA_NORM_BYTES, /* ByteLevel: each byte becomes its character of the byte-level alphabet */
    FA_NORM_PRECOMPILED,
    FA_NORM_SPM /* SentencePiece's own */
} fa_norm_kind;

typedef struct fa_norm {
    fa_norm_kind kind;
    char *from, *to; /* literal or nothing; owned */
    size_t n_from, n_to;
    fa_regex *re;
    fa_charsmap *map;     /* PRECOMPILED; owned */
    bool compose, compat; /* UNICODE: NFC = compose, NFKC = both, NFD = none */
    bool left, right;     /* STRIP */
} fa_norm;

/* Runs all normalizers over s[0..n). *out points to s or to a buffer of e that lives until the next call. *zero: how
 * many of the first bytes of s, then of *out, come from the very first character of the text (0 when s is not the
 * beginning): what "first" means to Metaspace. */
int fa_norm_run(fa_enc *e, const char *s, size_t n, const char **out, size_t *n_out, size_t *zero);

/* ---- pretok.c ---- */

typedef enum fa_pre_kind {
    FA_PRE_SCAN,  /* isolated matches of a scanner */
    FA_PRE_REGEX, /* matches of a regex or a literal, with a behaviour */
    FA_PRE_LITERAL,
    FA_PRE_CLASS, /* single characters of a class (Punctuation, Digits one by one), with a behaviour */
    FA_PRE_RUNS,  /* runs of a class and of its complement (Digits together), isolated */
    FA_PRE_METASPACE,
    FA_PRE_SPACE_PREFIX, /* ByteLevel's add_prefix_space */
    FA_PRE_BYTES,        /* ByteLevel's characters in place of bytes, where the model does not work on bytes itself */
    FA_PRE_SCRIPTS,      /* UnicodeScripts */
    FA_PRE_LENGTH,       /* FixedLength: `length` characters each */
    FA_PRE_CUT           /* ours: where no merge can join, so that words stay short */
} fa_pre_kind;

typedef enum fa_behavior { FA_REMOVED, FA_ISOLATED, FA_MERGED_PREV, FA_MERGED_NEXT, FA_CONTIGUOUS } fa_behavior;

typedef struct fa_pre {
    fa_pre_kind kind;
    fa_behavior behavior;
    bool invert;
    fa_scan *scan;
    fa_regex *re;
    char *text; /* LITERAL: the pattern; METASPACE: the replacement; CUT: the character words begin with */
    size_t n_text;
    size_t length; /* LENGTH */
    uint32_t set;  /* CLASS, RUNS: fa_ucd_set mask */
    unsigned more; /* CLASS, RUNS: FA_MORE bits beside them */
    int prepend;   /* METASPACE: 0 never, 1 first, 2 always */
    bool split;    /* METASPACE */
} fa_pre;

/* Cuts a normalized piece into words and encodes each. zero: as fa_norm_run says. */
void fa_pre_run(fa_enc *e, const char *s, size_t n, size_t zero);

/* ---- cut.c: where no merge can join ---- */

typedef struct fa_cut {
    bool spaces;     /* the text is not normalized: its spaces stand for U+2581 */
    bool sign_first; /* and one stands in front of it */
    uint8_t *stop;   /* [b << 8 | a], both ASCII: 1 when b is never joined to a that stands before it */
    uint64_t *wide;  /* all other pairs, by hash: a bit that is not set is such a pair */
    uint32_t known;  /* not 0: of those, only pairs with this character may be cut */
    bool left_out;   /* and only those of it and ASCII characters */
} fa_cut;

int fa_cut_build(fa_tok *t, fa_error *err);
/* Cuts a piece into words and encodes them. */
void fa_cut_run(fa_enc *e, const char *s, size_t n);
/* Text between added tokens, when `spaces` is set, instead of normalizers and pre-tokenizers. */
void fa_cut_text(fa_enc *e, const char *s, size_t n);

/* ---- decode.c ---- */

typedef enum fa_dec_kind {
    FA_DEC_BYTE_LEVEL,
    FA_DEC_BYTE_FALLBACK,
    FA_DEC_FUSE,
    FA_DEC_STRIP,
    FA_DEC_REPLACE,
    FA_DEC_REPLACE_RE,
    FA_DEC_METASPACE,
    FA_DEC_WORDPIECE, /* from: the prefix; start: cleanup */
    FA_DEC_BPE,       /* from: the suffix */
    FA_DEC_CTC        /* from: the pad token; to: the word delimiter; start: cleanup */
} fa_dec_kind;

typedef struct fa_dec {
    fa_dec_kind kind;
    char *from, *to; /* owned */
    size_t n_from, n_to;
    fa_regex *re;       /* REPLACE_RE; owned */
    size_t start, stop; /* STRIP */
    bool joined;        /* an earlier step has made one string of all tokens */
} fa_dec;

/* Characters of the byte-level alphabet: the byte, or -1. And the other way: UTF-8 of a byte's character into out[2],
 * its length. */
int fa_byte_of_char(uint32_t cp);
int fa_char_of_byte(unsigned byte, char *out);

/* ---- the whole ---- */

typedef struct fa_post { /* ids around a single sequence */
    int32_t *before, *after;
    size_t n_before, n_after;
    int32_t
        *again; /* what stands behind the sequence before `after`, -1 for the sequence once more; NULL nearly always */
    size_t n_again;
    bool dropped; /* the template leaves the sequence out */
} fa_post;

enum { FA_TOK_MAX_STEPS = 64 }; /* normalizers, pre-tokenizers, decoders: more than this is refused */

typedef struct fa_spm fa_spm; /* spm.h */

struct fa_tok {
    char *what;      /* the source, for messages */
    fa_strtab name;  /* spelling by id, added tokens too; indexed: the model's vocabulary */
    fa_strtab shown; /* the few tokens that are spelled otherwise outwards: normalized added tokens */
    fa_strtab raw;   /* byte level with ignore_merges: the vocabulary as bytes */
    fa_model_kind kind;
    fa_bpe bpe;
    fa_cut cut;
    fa_unigram uni;
    fa_spm *spm; /* SentencePiece models; NULL otherwise */
    fa_wordpiece wp;
    int32_t model_unk; /* WordLevel; -1 none: an unknown word is an error */
    fa_added *added;
    size_t n_added;
    fa_smap added_id;            /* content -> index in added */
    uint8_t *special;            /* by id */
    fa_trie trie_raw, trie_norm; /* non-normalized and normalized added tokens */
    fa_norm norm[FA_TOK_MAX_STEPS];
    fa_pre pre[FA_TOK_MAX_STEPS];
    fa_dec dec[FA_TOK_MAX_STEPS];
    size_t n_norm, n_pre, n_dec;
    bool has_decoder;    /* without one the reference joins tokens by a space */
    bool plain_special;  /* special tokens written out in the text are plain text unless the caller asks for them */
    bool special_breaks; /* decoding: a special token, shown or not, ends the text before it */
    fa_post post;
    int32_t bos, eos, pad, unk;
    _Atomic(fa_enc *) spare; /* one idle fa_enc with its word cache, taken and given back by encode */
};

/* ---- words.c: words on their way to BPE, and their cache ---- */

enum { FA_SHORT_WORD = 15, FA_WORD_BATCH = 32 };

typedef struct fa_short_word { /* two are one cache line */
    uint64_t key[2];           /* up to 15 bytes, zero padded; the last byte is the length, 0 = free */
    int32_t id[4];             /* the upper two bits of the first: how many more there are */
} fa_short_word;

typedef struct fa_wide_word {
    uint64_t key[4]; /* the same with up to 31 bytes */
    int32_t id[7];
    uint32_t n;
} fa_wide_word;

typedef struct fa_pending {
    const char *s;
    size_t n;
    uint64_t key[2], hash; /* words of up to FA_SHORT_WORD bytes */
} fa_pending;

typedef struct fa_words {
    void *block; /* what `small` lies in, at the first cache line */
    fa_short_word *small;
    fa_wide_word *wide;
    size_t n_small, used_small, n_wide, used_wide; /* slots (powers of two), and how many are in use */
    fa_pending pend[FA_WORD_BATCH];
    size_t n_pend;
} fa_words;

typedef struct fa_long fa_long; /* bpe.c: scratch of long words */

/* One call to encode. rc is sticky: after a failure the steps return at once. */
struct fa_enc {
    const fa_tok *t;
    int rc;
    fa_error *err;
    int32_t *ids;
    size_t n, cap;
    bool at0;        /* norm.c: the piece begins the text */
    const char *lim; /* end of the buffer that the current words lie in: up to here bytes may be read */
    fa_words words;
    fa_buf norm[2];               /* normalizers write to these in turn */
    fa_buf pre[FA_TOK_MAX_STEPS]; /* a pre-tokenizer that rewrites its piece owns one */
    fa_buf word;                  /* bpe.c: first symbol with prefix or suffix */
    fa_buf path;                  /* unigram.c: the best way to each place */
    fa_regex_run *re;
    uint32_t *cps; /* norm.c: code points of one segment */
    size_t n_cps;
    fa_long *lw;
};

/* Room for k more ids; false (and e->rc) when out of memory. */
bool fa_enc_room(fa_enc *e, size_t k);

/* Appends s with U+FFFD for each ill-formed part. */
void fa_tok_repair(fa_buf *b, const char *s, size_t n);

/* Loaders: an empty tokenizer; the last checks and tables (matchers, cut) after everything is filled. */
fa_tok *fa_tok_alloc(const char *what);
int fa_tok_finish(fa_tok *t, fa_error *err);

#endif
