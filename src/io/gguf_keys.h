/* Metadata of one architecture of a GGUF file, read with sticky errors and written as keys of a config.json: for the
 * translations that have a file of their own (see gguf_hf.c). */
#ifndef FA_IO_GGUF_KEYS_H
#define FA_IO_GGUF_KEYS_H

#include "io/ckpt_impl.h"

typedef struct fa_gguf_keys {
    const fa_ckpt *c;
    const char *file, *arch; /* keys are "<arch>.<key>" */
    fa_buf *json;            /* an object that has keys already */
    fa_error *err;
    int rc; /* of the first failure */
} fa_gguf_keys;

const fa_gguf_value *fa_gguf_key(const fa_gguf_keys *k, const char *key); /* NULL: absent */
bool fa_gguf_is_list(const fa_gguf_value *v);                             /* of numbers; NULL is none */
/* A whole number of at least `least`, or the value of `layer` where it is a list. Absent: `otherwise`, or an error when
 * that is negative. 1 after an error. */
int64_t fa_gguf_whole(fa_gguf_keys *k, const char *key, int64_t layer, int64_t least, int64_t otherwise);
/* A finite number. */
double fa_gguf_number(fa_gguf_keys *k, const char *key, double otherwise);
bool fa_gguf_true(const fa_gguf_keys *k, const char *key, bool otherwise);
/* Is there a tensor of this (HuggingFace) name behind "model.layers.N." in the layer? */
bool fa_gguf_in_layer(const fa_gguf_keys *k, int64_t layer, const char *name);
/* ... in any of the n_layer first */
bool fa_gguf_any_layer(const fa_gguf_keys *k, int64_t n_layer, const char *name);

void fa_gguf_put_int(fa_gguf_keys *k, const char *key, int64_t v);
void fa_gguf_put_bool(fa_gguf_keys *k, const char *key, bool v);
/* Of an f32: nine digits, whatever the locale. */
void fa_gguf_put_float(fa_gguf_keys *k, const char *key, double v);

#endif
