/* Adapter files: what PEFT and mlx-lm write, read into one form. Nothing here knows the model. */
#ifndef FA_ENGINE_ADAPTER_FILE_H
#define FA_ENGINE_ADAPTER_FILE_H

#include "base/mem.h"
#include "io/safetensors.h"

/* A low-rank change of one module, in one of three layouts:
 *   PEFT, linear     a [rank, in],    b [out, rank], bias [out] or NULL
 *   PEFT, embedding  a [rank, vocab], b [dim, rank]
 *   mlx              a [in, rank],    b [rank, out]; of an embedding a [vocab, rank], b [rank, dim] */
typedef struct fa_adapter_module {
    const char *name; /* as the model that it was trained on calls it: "model.layers.0.self_attn.q_proj" */
    bool table;       /* an embedding */
    const fa_st_tensor *a, *b, *bias;
    const fa_st_tensor *base; /* the whole matrix that it changes, which PEFT may save too, or NULL */
    int64_t rank;
    float scale;
} fa_adapter_module;

typedef struct fa_adapter_file {
    fa_st *st;
    fa_json *config;
    fa_mem mem;
    bool mlx;
    fa_adapter_module *module;
    size_t n;
    uint64_t hash; /* of names, matrices and scales */
} fa_adapter_file;

/* path: a folder with adapter_config.json and adapter_model.safetensors (PEFT) or adapters.safetensors (mlx-lm), or one
 * of these weight files. What PEFT or mlx-lm would compute differently from a plain low-rank sum is refused by name. */
int fa_adapter_file_open(fa_adapter_file *f, const char *path, fa_error *err);
void fa_adapter_file_close(fa_adapter_file *f);

#endif
