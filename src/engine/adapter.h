/* A loaded adapter, and what the parts that load it share: adapter_match.c (dense modules), adapter_expert.c (experts),
 * adapter_dora.c (lengths of changed rows), adapter.c (memory and tables). */
#ifndef FA_ENGINE_ADAPTER_H
#define FA_ENGINE_ADAPTER_H

#include "base/smap.h"
#include "engine/adapter_file.h"
#include "engine/engine.h"

/* A change of one of the model's matrices, or of a stack of experts. */
typedef struct fa_change {
    uint32_t id; /* of the matrix */
    bool table;  /* of the embedding, not of the product with it */
    fa_lora lora;
    size_t n_expert; /* entries of lora.expert */
} fa_change;

struct ffai_adapter {
    ffai_engine *e;
    int index; /* in e->adapters */
    uint64_t serial;
    char *path;
    bool mlx;
    uint64_t hash;
    fa_change *change; /* [n] */
    size_t n, cap;
    int64_t rank; /* the largest */
    fa_mem mem;   /* what its weights point to; on a device only while they are loaded */
    void *block;  /* on a device */
    size_t bytes;
};

/* The model's matrices by name. Those of the same name stand in a chain. */
typedef struct fa_finder {
    const ffai_engine *e;
    const fa_targets *all;
    fa_smap first;  /* name to index of the first target */
    uint32_t *next; /* [all->n] index of the next one of that name, 0: none */
    bool pairs;     /* rows of q and k are in the order of GGUF files */
} fa_finder;

/* All modules of a file become changes of a, or an error says what is wrong with all of them. */
int fa_adapter_match(ffai_adapter *a, fa_adapter_file *file, fa_error *err);

/* ---- between the parts ---- */

/* A new change at the end; NULL: no memory. */
fa_change *fa_adapter_change(ffai_adapter *a, uint32_t id, bool table, float scale, fa_error *err);
/* [n] floats of a vector; rows NULL: in order. NULL: no memory. */
const float *fa_adapter_vector(ffai_adapter *a, const fa_st_tensor *t, const int64_t *rows, int64_t n);
fa_fmt fa_adapter_fmt(const fa_st_tensor *t);
/* The target of that name and its index; NULL: none. */
const fa_target *fa_finder_get(const fa_finder *f, const char *name, uint32_t *index);

/* adapter_dora.c: lora.mag of a change of w, from m [n_mag]: rows of b a (linear), or of a b^T (embedding), are added
 * to those of w. */
int fa_adapter_lengths(ffai_adapter *a, fa_change *c, const fa_weight *w, const float *m, const char *name,
                       fa_error *err);

/* adapter_expert.c: modules of experts, of which several make a change: they are gathered first. */
typedef struct fa_expert_list {
    struct fa_expert_part *at; /* [n] */
    size_t n, cap;
} fa_expert_list;

/* Is a module one of experts? 1: it is remembered, or what is wrong with its shapes was noted; 0: no; < 0: an error. */
int fa_adapter_expert(const fa_finder *f, const fa_adapter_file *file, fa_adapter_module *m, fa_expert_list *list,
                      fa_buf *wrong, fa_error *err);
int fa_adapter_experts(ffai_adapter *a, const fa_finder *f, fa_expert_list *list, fa_error *err);
void fa_expert_list_free(fa_expert_list *list);

#endif
