/* Adapter files: what PEFT and mlx-lm write, read into one form. Nothing here knows the model. */
#ifndef FA_ENGINE_ADAPTER_FILE_H
#define FA_ENGINE_ADAPTER_FILE_H

#include "base/mem.h"
#include "io/safetensors.h"

/* A low-rank change of one module, in one of these layouts:
 *   PEFT, linear     a [rank, in],    b [out, rank], bias [out] or NULL
 *   PEFT, embedding  a [rank, vocab], b [dim, rank]
 *   PEFT, stack of experts (target_parameters)  a [n rank, in], expert by expert; b [out, rank n], column r n + e
 *   mlx              a [in, rank],    b [rank, out]; of an embedding a [vocab, rank], b [rank, dim]
 *   mlx, stack of experts  a [n, rank, in], b [n, out, rank]
 * With magnitudes mag [out] (PEFT, embedding: [dim]; mlx, embedding: [vocab]). */
typedef struct fa_adapter_module {
    const char *name; /* as the model that it was trained on calls it: "model.layers.0.self_attn.q_proj" */
    bool table;       /* an embedding */
    const fa_st_tensor *a, *b, *bias;
    const fa_st_tensor *mag;  /* NULL unless the file has magnitudes (DoRA) */
    const fa_st_tensor *base; /* the whole matrix that it changes, which PEFT may save too, or NULL */
    int64_t rank;             /* of all experts together until fa_adapter_file_scale */
    float scale;
} fa_adapter_module;

typedef struct fa_adapter_file {
    fa_st *st;
    fa_json *config;
    fa_mem mem;
    bool mlx, dora;
    fa_adapter_module *module;
    size_t n;
} fa_adapter_file;

/* path: a folder with adapter_config.json and adapter_model.safetensors (PEFT) or adapters.safetensors (mlx-lm), or one
 * of these weight files. What PEFT or mlx-lm would compute differently from a plain low-rank sum, or one with
 * magnitudes, is refused by name. */
int fa_adapter_file_open(fa_adapter_file *f, const char *path, fa_error *err);
/* The scale and the rank of a module, once it is known what of the model it is: one matrix (n_expert 0), or a stack of
 * experts. name: what PEFT's patterns are for: the module's name, or that of the stack. */
int fa_adapter_file_scale(const fa_adapter_file *f, fa_adapter_module *m, const char *name, int64_t n_expert,
                          fa_error *err);
/* Does PEFT's "target_parameters" list this parameter? */
bool fa_adapter_file_targets(const fa_adapter_file *f, const char *name);
/* Did PEFT write it before version 0.19, which took the two axes of a stack of experts the other way round? */
bool fa_adapter_file_old_stacks(const fa_adapter_file *f);
/* Of names, matrices and scales. */
uint64_t fa_adapter_file_hash(const fa_adapter_file *f);
void fa_adapter_file_close(fa_adapter_file *f);

#endif
