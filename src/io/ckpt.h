/* A checkpoint on disk: a HuggingFace / mlx folder or a GGUF file, as one list of named tensors plus a
 * HuggingFace-style config.
 *
 * GGUF tensors appear under their HuggingFace names (blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight) and
 * GGUF metadata as a synthesised config.json tree, so that families know one spelling only. What GGUF stores
 * differently is said in the config under keys that begin with "ffai_" (see docs/formats.md): "ffai_rope_interleaved":
 * true (llama-architecture q/k rows are permuted for pairs (2i, 2i+1)), "ffai_norm_offset_applied": true (gemma: the 1
 * of (1 + w) is already in the stored norm weights). */
#ifndef FA_IO_CKPT_H
#define FA_IO_CKPT_H

#include "io/gguf.h"
#include "io/json.h"
#include "tensor/qfmt.h"

typedef struct fa_ckpt fa_ckpt;

typedef struct fa_ckpt_tensor {
    const char *name;      /* HuggingFace name */
    const char *file;      /* the file that holds it, for messages */
    const char *type_name; /* "BF16", "U32", "Q4_K", ...: as the file says */
    const uint8_t *data;   /* mapped; any alignment */
    size_t bytes;
    int64_t dim[8]; /* outermost first */
    uint8_t n_dim;
    int8_t dtype; /* fa_dtype, or -1 for block formats */
    bool copied;  /* data are no part of a mapping */
    int8_t fmt;   /* fa_fmt that a matrix of this type has (F32 F16 BF16 and GGUF blocks), or -1: recognised but not
                     computed, or no weight type */
} fa_ckpt_tensor;

/* path: a folder with config.json and *.safetensors (single file or model.safetensors.index.json) or pytorch_model.bin
 * (the same), or one .gguf file (split files: any part, all parts are found by name). A folder that holds no
 * config.json but exactly one .gguf model opens that. Nothing is read but headers (and values of torch files that are
 * saved transposed). need_weights false: a folder may lack weights (config and tokenizer only). */
int fa_ckpt_open(fa_ckpt **out, const char *path, bool need_weights, fa_error *err);
void fa_ckpt_free(fa_ckpt *c);
size_t fa_ckpt_count(const fa_ckpt *c);
const fa_ckpt_tensor *fa_ckpt_at(const fa_ckpt *c, size_t i);
const fa_ckpt_tensor *fa_ckpt_find(const fa_ckpt *c, const char *name); /* NULL when absent */
const fa_jnode *fa_ckpt_config(const fa_ckpt *c);            /* root of config.json, or the synthesised tree */
const fa_jnode *fa_ckpt_generation_config(const fa_ckpt *c); /* generation_config.json or NULL */
const fa_gguf *fa_ckpt_gguf(const fa_ckpt *c);   /* first GGUF file (metadata: tokenizer), or NULL for folders */
const char *fa_ckpt_container(const fa_ckpt *c); /* "safetensors", "torch" or "gguf" */
/* Are the files of the tensors still what was opened? A file that was written or became shorter is an error, from then
 * on. */
int fa_ckpt_check(fa_ckpt *c, fa_error *err);
/* For a handler of SIGBUS: see fa_map_patch. From then on fa_ckpt_check fails. */
bool fa_ckpt_patch(fa_ckpt *c, const void *address);
bool fa_ckpt_lost(const fa_ckpt *c);        /* will fa_ckpt_check fail? Costs nothing; false: not known yet */
const char *fa_ckpt_path(const fa_ckpt *c); /* the folder or file that was opened */

#endif
