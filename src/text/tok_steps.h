/* Loader internals: the pipeline sections of tokenizer.json, and what tok_gguf.c shares with tok_hf.c. */
#ifndef FA_TEXT_TOK_STEPS_H
#define FA_TEXT_TOK_STEPS_H

#include "io/json.h"
#include "text/charsmap.h"
#include "text/tok_int.h"

/* tok_steps.c: each fills its part of t from a section, which may be NULL or null. */
int fa_tok_read_normalizer(fa_tok *t, const fa_jnode *n, fa_error *err);
int fa_tok_read_pre_tokenizer(fa_tok *t, const fa_jnode *n, fa_error *err);
int fa_tok_read_post_processor(fa_tok *t, const fa_jnode *n, fa_error *err);
int fa_tok_read_decoder(fa_tok *t, const fa_jnode *n, fa_error *err);

/* One step appended; strings are copied. Errors: too many steps, no memory, a pattern that does not compile. */
int fa_tok_put_replace(fa_tok *t, const char *from, size_t n_from, const char *to, size_t n_to, fa_error *err);
int fa_tok_put_prepend(fa_tok *t, const char *text, size_t n, fa_error *err);
int fa_tok_put_unicode(fa_tok *t, bool compose, bool compat, fa_error *err);
int fa_tok_put_pattern(fa_tok *t, const char *pattern, size_t n, fa_behavior b, bool invert, fa_error *err);
int fa_tok_put_literal(fa_tok *t, const char *s, size_t n, fa_behavior b, bool invert, fa_error *err);
/* SentencePiece's normalizer, as t->spm has it. */
int fa_tok_put_spm(fa_tok *t, fa_error *err);
int fa_tok_put_lower(fa_tok *t, fa_error *err);
int fa_tok_put_strip(fa_tok *t, bool left, bool right, fa_error *err);
/* BertNormalizer, its four parts. */
int fa_tok_put_bert(fa_tok *t, bool clean_text, bool chinese_chars, bool strip_accents, bool lowercase, fa_error *err);
/* Takes the map, also when it fails: `tokenizers`' way of applying a charsmap (by grapheme). */
int fa_tok_put_precompiled(fa_tok *t, fa_charsmap *map, fa_error *err);
/* Pre-tokenizers: BertPreTokenizer; Metaspace with scheme 0 never, 1 first, 2 always. */
/* Words between white space. */
int fa_tok_put_white_split(fa_tok *t, fa_error *err);
int fa_tok_put_bert_words(fa_tok *t, fa_error *err);
int fa_tok_put_metaspace(fa_tok *t, const char *replacement, size_t n, int scheme, bool split, fa_error *err);
/* from: WordPiece's prefix; start: cleanup (FA_DEC_WORDPIECE). Others as their step has it. */
int fa_tok_put_decoder(fa_tok *t, fa_dec_kind kind, const char *from, size_t n_from, const char *to, size_t n_to,
                       size_t start, size_t stop, fa_error *err);
/* ids before and after the sequence, put around what is there. */
int fa_tok_wrap(fa_tok *t, const int32_t *before, size_t n_before, const int32_t *after, size_t n_after, fa_error *err);

/* tok_models.c: model.type, or what files without it mean; the models beside BPE. The vocabulary of WordPiece and
 * WordLevel is in t->name already. */
const char *fa_tok_model_type(const fa_jnode *model);
int fa_tok_read_wordpiece(fa_tok *t, const fa_jnode *model, fa_error *err);
int fa_tok_read_wordlevel(fa_tok *t, const fa_jnode *model, fa_error *err);
int fa_tok_read_unigram(fa_tok *t, const fa_jnode *model, fa_error *err);

/* tok_hf.c. A folder with tokenizer.json. */
int fa_tok_from_hf_dir(fa_tok **out, const char *dir, fa_error *err);
/* tok_hf.c. Merges: begin (about n of them), each "a b" with its index or as two strings, end; end frees and takes the
 * result so far. The strings must live until the next flush; up to lim (or NULL) bytes may be read behind
 * them. */
int fa_tok_merges_begin(void **out, fa_tok *t, size_t n, fa_error *err);
int fa_tok_merge_text(void *merges, const char *s, size_t n, size_t i, fa_error *err);
int fa_tok_merge_pair(void *merges, const char *a, size_t na, const char *b, size_t nb, const char *lim, fa_error *err);
int fa_tok_merges_flush(void *merges, fa_error *err);
int fa_tok_merges_end(void *merges, int rc, fa_error *err);
/* tok_fast.c: reads vocabulary and merges of a BPE tokenizer.json into a new *t, and the rest of the file into *rest.
 * Both stay NULL, with FFAI_OK, when the file has to be read in the common way. */
int fa_tok_fast(fa_tok **t, fa_json **rest, const char *json, size_t len, const char *what, fa_error *err);
/* After the vocabulary and the pre-tokenizers: chooses and builds the table of words. */
int fa_tok_prepare_words(fa_tok *t, fa_error *err);
/* Appends an added token; t->added has room. The text is copied. */
int fa_tok_add(fa_tok *t, const fa_added *a, fa_error *err);

/* scores.c: what sorts tokens by score; ranks from v[0..k), key << 32 | id in any order, with room for k more behind.
 */
uint32_t fa_tok_score_key(float score);
int fa_tok_put_ranks(fa_tok *t, uint64_t *v, size_t k, fa_error *err);

/* decode.c: the bytes of a byte-level token into *b (emptied first); false when it has a character outside the
 * alphabet. */
bool fa_tok_bytes_of_piece(const char *p, size_t n, fa_buf *b);

#endif
