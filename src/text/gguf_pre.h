/* The pre-tokenizers that GGUF files name (tokenizer.ggml.pre): what cuts words in front of a "gpt2" vocabulary. */
#ifndef FA_TEXT_GGUF_PRE_H
#define FA_TEXT_GGUF_PRE_H

#include <stdbool.h>
#include <stddef.h>

enum { FA_GGUF_PATTERNS = 6 };

typedef enum fa_gguf_words {
    FA_GGUF_BYTES, /* words are bytes in the byte-level alphabet */
    FA_GGUF_SIGNS, /* text with word signs in place of spaces, not cut */
    FA_GGUF_PLAIN  /* words between white space, as they are */
} fa_gguf_words;

typedef struct fa_gguf_pre {
    const char *names;                     /* separated by spaces */
    const char *pattern[FA_GGUF_PATTERNS]; /* they split in this order, each isolating its matches */
    fa_gguf_words words;
    bool ignore_merges, bos, nfc, sep; /* bos, sep: added unless the file says otherwise */
} fa_gguf_pre;

const fa_gguf_pre *fa_gguf_find_pre(const char *name, size_t n);

#endif
