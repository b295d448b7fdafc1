/* Tokenizers: text to ids and back, as HuggingFace `tokenizers` does it, from tokenizer.json or from GGUF metadata.
 *
 * A fa_tok is immutable after load and may be shared by threads. Encoding is linear in the text for any text. Text is
 * bytes: what is not UTF-8 is read with U+FFFD in place of each ill-formed part (Python's errors="replace"). Decoding a
 * whole list and pushing it id by id through a fa_tok_stream give the same bytes.
 */
#ifndef FA_TEXT_TOK_H
#define FA_TEXT_TOK_H

#include "base/buf.h"
#include "base/err.h"
#include "io/gguf.h"

typedef struct fa_tok fa_tok;
typedef struct fa_tok_stream fa_tok_stream;

/* Reads the tokenizer of a folder: tokenizer.json, else tekken.json, else tokenizer.model (SentencePiece or tiktoken
 * ranks, by what it holds), else vocab.json and merges.txt, else vocab.txt, else a *.tiktoken file; with what
 * tokenizer_config.json, special_tokens_map.json and added_tokens.json say. */
int fa_tok_from_dir(fa_tok **out, const char *dir, fa_error *err);
/* One file of these kinds by itself; whether there is such a file, going by its name. */
bool fa_tok_is_file(const char *path);
int fa_tok_from_file(fa_tok **out, const char *path, fa_error *err);
/* tokenizer.json as bytes; config (tokenizer_config.json) may be NULL. Neither is kept. `what` names the source in
 * messages. */
int fa_tok_from_json(fa_tok **out, const char *json, size_t len, const char *config, size_t config_len,
                     const char *what, fa_error *err);
/* tokenizer.ggml.* of an open GGUF file. Nothing of the file is kept. */
int fa_tok_from_gguf(fa_tok **out, const fa_gguf *g, fa_error *err);
void fa_tok_free(fa_tok *t);

typedef enum fa_tok_flags {
    FA_TOK_SPECIAL = 1,          /* add what the post-processor adds around one sequence (BOS, EOS) */
    FA_TOK_NO_PARSE_SPECIAL = 2, /* special tokens written out in the text are plain text */
    FA_TOK_PARSE_SPECIAL = 4     /* they are tokens even where the original keeps them out of texts (tekken.json, a lone
                                    SentencePiece model): what a chat template has rendered is read with this */
} fa_tok_flags;

/* *ids is a fresh block (fa_free), NULL when *n_ids is 0. */
int fa_tok_encode(const fa_tok *t, const char *text, size_t n, unsigned flags, int32_t **ids, size_t *n_ids,
                  fa_error *err);

/* Appends the text to *out (valid UTF-8). An id that the tokenizer does not have is an error that names it and its
 * place; *out is then as it was. */
int fa_tok_decode(const fa_tok *t, const int32_t *ids, size_t n, bool skip_special, fa_buf *out, fa_error *err);

/* The same id by id: push appends to *out the bytes that no later id can change (never part of a character), flush the
 * rest and begins anew. Ids without a token (the padding of an embedding table) have no text. The fa_tok must outlive
 * the stream. */
int fa_tok_stream_new(fa_tok_stream **out, const fa_tok *t, bool skip_special, fa_error *err);
int fa_tok_stream_push(fa_tok_stream *s, int32_t id, fa_buf *out, fa_error *err);
int fa_tok_stream_flush(fa_tok_stream *s, fa_buf *out, fa_error *err);
void fa_tok_stream_free(fa_tok_stream *s);

/* Ids are 0 .. size-1; some of them may have no token. */
size_t fa_tok_size(const fa_tok *t);
/* The token as the vocabulary spells it ("Ġthe", "▁the"), NUL-terminated, alive as long as t; NULL when the id has
 * none. len may be NULL. */
const char *fa_tok_piece(const fa_tok *t, int32_t id, size_t *len);
/* The id of a token spelled so, added tokens first; -1 when there is none. */
int32_t fa_tok_id(const fa_tok *t, const char *piece, size_t len);
bool fa_tok_is_special(const fa_tok *t, int32_t id);

/* Appends the bytes that a token adds to a text in the middle of it, which may be part of a character; nothing for
 * special tokens and ids without a token. */
void fa_tok_bytes(const fa_tok *t, int32_t id, fa_buf *out);
/* Whether tokens have such bytes, alone. Decoders that look at neighbours (WordPiece, CTC) leave none. */
bool fa_tok_has_bytes(const fa_tok *t);
/* A space that begins a text is not part of it. */
bool fa_tok_eats_space(const fa_tok *t);

/* -1 when neither the tokenizer nor its config names one. */
int32_t fa_tok_bos(const fa_tok *t);
int32_t fa_tok_eos(const fa_tok *t);
int32_t fa_tok_pad(const fa_tok *t);
int32_t fa_tok_unk(const fa_tok *t);
/* "BPE, 32000 tokens, 3 added": one line for `inspect`; NUL-terminated into text[cap]. */
void fa_tok_describe(const fa_tok *t, char *text, size_t cap);

#endif
