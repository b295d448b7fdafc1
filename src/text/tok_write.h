/* Writing tokenizers of GGUF files in HuggingFace's form. */
#ifndef FA_TEXT_TOK_WRITE_H
#define FA_TEXT_TOK_WRITE_H

#include "base/buf.h"
#include "io/gguf.h"

/* tokenizer.json and tokenizer_config.json (with the chat template). *done false, and nothing is written: a kind that
 * has no such form here (all but "llama", "gpt2" and "gemma4"). */
int fa_tok_write_gguf(const fa_gguf *g, fa_buf *json, fa_buf *config, bool *done, fa_error *err);

#endif
