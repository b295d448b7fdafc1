/* Inside of a checkpoint: shared by ckpt.c (handle, index, lookups), ckpt_dir.c (folders of safetensors or torch
 * files), ckpt_gguf.c (GGUF parts), gguf_names.c and gguf_hf.c (the GGUF -> HuggingFace translation). */
#ifndef FA_IO_CKPT_IMPL_H
#define FA_IO_CKPT_IMPL_H

#include "base/buf.h"
#include "base/smap.h"
#include "io/ckpt.h"
#include "io/safetensors.h"
#include "io/torch.h"

#include <stdatomic.h>

/* One file of a folder: one of the two. */
typedef struct fa_shard {
    fa_st *st;
    fa_pt *pt;
} fa_shard;

struct fa_ckpt {
    char *path;
    fa_json *config, *generation_config;
    fa_shard *shard; /* files of a folder, or */
    size_t n_shard;
    bool torch;     /* they are torch's, not safetensors */
    fa_gguf **gguf; /* GGUF parts, in order */
    char **gguf_path;
    size_t n_gguf;
    char **owned; /* translated tensor names */
    size_t n_owned;
    fa_ckpt_tensor *tensor;
    size_t n_tensor;
    fa_smap by_name;
    atomic_bool lost; /* a page of a file was replaced by zeros */
};

enum { FA_CKPT_MAX_FILES = 10000 };

/* dir + "/" + name, or NULL when out of memory. */
char *fa_path_join(const char *dir, const char *name);
/* The names in a folder that end in `suffix`, sorted bytewise; free with fa_names_free. */
int fa_list_dir(char ***names, size_t *n, const char *dir, const char *suffix, fa_error *err);
void fa_names_free(char **names, size_t n);
/* "<stem>-00002-of-00005<suffix>": part and parts (1-based) and the length of the stem; false for other names. */
bool fa_split_name(const char *name, const char *suffix, size_t *stem, unsigned *part, unsigned *parts);

int fa_ckpt_open_dir(fa_ckpt *c, bool need_weights, fa_error *err);  /* fills config, generation_config, shard */
int fa_ckpt_open_gguf(fa_ckpt *c, const char *path, fa_error *err);  /* fills gguf, config */
int fa_ckpt_add(fa_ckpt *c, const fa_ckpt_tensor *t, fa_error *err); /* room was reserved; refuses a name that exists */

/* A config.json of the mamba_ssm package becomes one of transformers (mamba_ssm.c); any other stays as it is. */
int fa_mamba_ssm_config(fa_json **config, const char *file, fa_error *err);

/* The HuggingFace name of a GGUF tensor into buf; false: no translation, the GGUF name stays. */
bool fa_gguf_hf_name(const char *arch, const char *name, char *buf, size_t size);
/* Are there names for an architecture's mixtures of experts? */
bool fa_gguf_hf_moe(const char *arch);
/* Names of Gemma 4 (gguf_gemma4.c): name is what stands behind "blk.N.", prefix "model.layers.N."; or a whole name
 * and "". */
bool fa_gguf_gemma4_name(const char *name, const char *prefix, char *buf, size_t size);
/* Adds the keys of a Gemma 4 model to an object. */
int fa_gguf_gemma4_config(fa_buf *json, const fa_ckpt *c, const char *file, fa_error *err);
/* Mamba mixers (gguf_ssm.c), alone in all layers or not: names behind "blk.N.", names of vectors that have two
 * dimensions, and keys. */
bool fa_gguf_is_ssm(const char *arch);
bool fa_gguf_ssm_alone(const char *arch);
bool fa_gguf_ssm_name(const char *arch, const char *name, const char *prefix, char *buf, size_t size);
bool fa_gguf_ssm_vector(const char *name);
int fa_gguf_ssm_config(fa_buf *json, const fa_ckpt *c, const char *file, const char *arch, fa_error *err);
/* Gated delta nets (gguf_gdn.c): names behind "blk.N.", layers that are counted but not used, and further keys. */
bool fa_gguf_is_gdn(const char *arch);
bool fa_gguf_gdn_name(const char *name, const char *prefix, char *buf, size_t size);
int fa_gguf_gdn_next_layers(const fa_ckpt *c, const char *file, const char *arch, int64_t *n, fa_error *err);
int fa_gguf_gdn_config(fa_buf *json, const fa_ckpt *c, const char *file, const char *arch, int64_t n_layer,
                       fa_error *err);
/* LFM2 and Nemotron H (gguf_hybrid.c): names behind "blk.N.", or whole ones with prefix "", and keys: of Nemotron H all
 * but the vocabulary's size. */
bool fa_gguf_is_hybrid(const char *arch);
bool fa_gguf_hybrid_name(const char *arch, const char *name, const char *prefix, char *buf, size_t size);
int fa_gguf_hybrid_config(fa_buf *json, const fa_ckpt *c, const char *file, const char *arch, fa_error *err);
/* The synthesised config.json as text. file names the GGUF in messages. */
int fa_gguf_hf_config(fa_buf *json, const fa_ckpt *c, const char *file, fa_error *err);

#endif
