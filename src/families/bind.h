/* The binder: finds a family's tensors in a checkpoint, checks them and turns them into views that kernels read. Used
 * by the loader. Three steps per matrix: what is stored (bind_stored.c, bind_import.c: formats and layouts of
 * checkpoints, as a view of host memory), where it is to lie (bind_place.c: the mapping, a private copy, a device), and
 * which part of it is wanted (bind.c: rows of fused projections, experts of a stack). Names are bind_names.c's; what is
 * missing, wrong, used or open to adapters is recorded by bind_record.c. */
#ifndef FA_FAMILIES_BIND_H
#define FA_FAMILIES_BIND_H

#include "base/buf.h"
#include "families/family.h"
#include "families/synth.h"
#include "io/ckpt.h"
#include "io/st_write.h"

#include <stdarg.h>
#include <stdio.h>

/* Random contents that a device is to make. */
typedef struct fa_synth_job {
    fa_weight w; /* with device addresses */
    uint64_t seed;
} fa_synth_job;

/* Weights that lie elsewhere: the binder hands out addresses from `base` on and lists what belongs there. Binding is
 * repeatable, so a first, dry pass with any base tells how much there is. Tensors that are bound twice share a place.
 * Planes begin at multiples of 256 bytes (FA_ARENA_ALIGN), rows at multiples of row_align. Vectors lie apart, so that
 * matrices that are bound one after the other (q, k, v) mostly are one matrix in memory. */
typedef struct fa_placer {
    uint8_t *base, *vectors;
    size_t bytes, vector_bytes; /* handed out from each */
    size_t row_align;
    bool dry;      /* no lists; addresses are not to be followed */
    size_t *place; /* [tensors of the checkpoint] 1 + offset of a tensor; 0: it has none yet */
    fa_mem temp;   /* vectors as f32, matrices that were made from others, and the lists */
    fa_copy *copy;
    fa_synth_job *job;
    size_t n_copy, cap_copy, n_job, cap_job;
} fa_placer;

/* A matrix as adapters know it: what a family binds under a name. Parts of a fused tensor have its name, all of them.
 */
typedef struct fa_target {
    const char *name;   /* of the family, without ".weight" */
    uint32_t id;        /* fa_weight.id */
    int64_t rows, cols; /* of the part that is bound */
    fa_part part;       /* rows of what the name stands for */
    const int64_t *row; /* gathered rows [rows] instead, or NULL */
    bool ordered;       /* its columns have an order of their own (fa_linear) */
    int64_t n_expert;   /* it is a stack of so many; 0: one matrix */
    fa_weight w;        /* in host memory, unless weights are random; of a stack the first one's */
} fa_target;

typedef struct fa_targets {
    fa_target *at; /* [n] in model memory */
    size_t n, cap;
} fa_targets;

/* Names with their layer numbers gathered: "model.layers.{0-31}.mlp.up_proj.weight". */
typedef struct fa_name {
    char *name; /* the first of them */
    int n;
    int64_t last; /* the last layer number; -1: the name has none */
} fa_name;

typedef struct fa_names {
    fa_name *item;
    size_t n, cap, at; /* at: the item that was added to last */
    int total;
} fa_names;

void fa_name_list_add(fa_names *l, const char *name);
void fa_name_list_print(const fa_names *l, fa_buf *out); /* with commas between */
void fa_name_list_free(fa_names *l);

/* Tensors behind a matrix. */
typedef struct fa_source {
    const fa_ckpt_tensor *t, *scales, *biases;
    /* codes; scales and biases: they were made in fa_bind_host memory, no tensor holds them as they are */
    bool made, made_scales;
    const float *order; /* see fa_linear, where the matrix is to lie; NULL: in order */
} fa_source;

/* A matrix, or a stack of n of them (n 0: no stack), as the checkpoint stores it: what fa_bind_stored finds again. */
typedef struct fa_stored {
    const char *name; /* of the family, without ".weight" */
    const char *real; /* the checkpoint's, likewise */
    int64_t n, rows, cols;
    size_t tensor;   /* of the checkpoint */
    fa_weight w;     /* format; no addresses */
    bool turned;     /* b->turned was set */
    bool experts;    /* b->experts likewise */
    bool ordered;    /* its columns have an order of their own */
    bool by_columns; /* floats that are stored as [n, cols, rows] */
} fa_stored;

/* Matrices by how they are stored, for reports. */
enum { FA_MAX_KINDS = 32 };
typedef struct fa_weight_kind {
    char text[32]; /* "affine 4-bit g64" */
    int64_t n, n_param, bytes;
} fa_weight_kind;

typedef struct fa_stored_list {
    fa_stored *at; /* [n] in model memory */
    size_t n, cap;
} fa_stored_list;

enum { FA_NAME_MAX = 256, FA_REAL_MAX = FA_NAME_MAX + 64 /* with prefix and suffix */ };

/* What became of a checkpoint's tensor; 0: nothing yet. */
typedef enum fa_use {
    FA_USE_FLOATS = 1, /* bound as numbers, or as scales or biases of a matrix */
    FA_USE_MATRIX = 2, /* bound as a matrix, in the format that it has */
    FA_USE_NAMED = 4   /* not bound, and nothing more is to be said of it */
} fa_use;

struct fa_binder {
    const fa_ckpt *ckpt;
    fa_mem *mem;
    const fa_rename *renames; /* of the family, or NULL */
    const fa_jnode *quant;    /* config's "quantization" or NULL */
    const char *body, *head;  /* what stands for "model." and before "lm_head" in this checkpoint */
    uint8_t *used;            /* [tensors of the checkpoint] fa_use */
    fa_names missing, extra, widened;
    fa_buf wrong; /* tensors of other shapes than expected, with both */
    int n_wrong;
    int64_t n_param, bytes;
    int64_t n_idle;                              /* parameters of experts beyond those that a token chooses */
    int64_t n_expert, n_expert_used, expert_dim; /* of the last mixture */
    fa_weight_kind kind[FA_MAX_KINDS];           /* [n_kind] */
    int n_kind;
    bool headless;       /* a base model without lm_head */
    bool private_copy;   /* copy matrices out of the mapping and drop its pages */
    uint8_t *private_at; /* where the next one goes, and what is left there */
    size_t private_left;
    const fa_synth *synth; /* make random weights instead of looking for tensors; NULL: no */
    fa_st_item *item;      /* synth: every array made, [n_item], in model memory */
    size_t n_item, cap_item;
    uint64_t n_synth;  /* random tensors so far: their seeds do not depend on the format */
    fa_placer *placer; /* weights lie elsewhere; NULL: in the mapping and in model memory */
    /* the matrix that was bound last, whole: parts of one tensor are bound one after the other */
    char last_name[FA_REAL_MAX];
    fa_weight last;
    const float *last_order;
    bool turned;            /* see fa_part */
    bool experts;           /* what is bound are experts */
    uint32_t n_id;          /* matrices that got an id: the same in every binding of a model */
    fa_targets *targets;    /* where they are listed; NULL: nowhere */
    fa_stored_list *stored; /* where stored matrices are listed; NULL: nowhere */
    fa_error err;
};

int fa_binder_open(fa_binder *b, const fa_ckpt *ckpt, const fa_rename *renames, fa_mem *mem, fa_error *err);
/* Reports what failed, is missing or has another shape: all of it at once, with what the text model has but its family
 * does not use; that alone is no failure (fa_binder_extra). */
int fa_binder_finish(fa_binder *b, fa_error *err);
/* Tensors of the text model that its family does not know, as text in mem; NULL: none. After fa_binder_finish. */
const char *fa_binder_extra(const fa_binder *b, fa_mem *mem);
/* The same: quantized matrices that became floats. */
const char *fa_binder_widened(const fa_binder *b, fa_mem *mem);
void fa_binder_close(fa_binder *b);
int fa_placer_open(fa_placer *p, const fa_ckpt *ckpt, fa_error *err);
void fa_placer_close(fa_placer *p);
/* A module's name in an adapter as the family spells it: the names to look for among targets, the likeliest first. Turn
 * 0, 1, ...; NULL: no more. */
const char *fa_bind_module(const fa_rename *renames, const char *module, int turn, char out[FA_NAME_MAX]);
/* A small float tensor as f32 in model memory by its family name; NULL when absent or of another length. */
const float *fa_bind_floats(fa_binder *b, int64_t n, const char *name);

/* ---- between the parts of the binder ---- */
/* name: what the printf arguments behind fmt make. */
#define FA_BIND_NAME(name, fmt)                                                                                        \
    char name[FA_NAME_MAX];                                                                                            \
    va_list ap;                                                                                                        \
    va_start(ap, fmt);                                                                                                 \
    vsnprintf(name, sizeof name, fmt, ap);                                                                             \
    va_end(ap)
/* Can t be read as floats? Else an error. */
bool fa_bind_is_floats(fa_binder *b, const fa_ckpt_tensor *t);
/* n values of t are bound as floats. */
void fa_bind_took_floats(fa_binder *b, const fa_ckpt_tensor *t, int64_t n);
/* The first failure that is not about names and shapes; t NULL: of the checkpoint as a whole. */
void fa_bind_fail(fa_binder *b, int code, const fa_ckpt_tensor *t, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A tensor of another shape than expected: remembered. */
void fa_bind_wrong(fa_binder *b, const fa_ckpt_tensor *t, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void fa_bind_missing(fa_binder *b, const char *name, const char *suffix);
/* A stack of experts gets its id, unless it has one, and one more name. */
void fa_bind_stack_target(fa_binder *b, fa_experts *e, const fa_part *part, const char *name);
/* A linear layer or a table gets its id. row: gathered, or NULL. */
void fa_bind_target(fa_binder *b, fa_linear *l, const fa_part *part, const int64_t *row, const char *name);
/* A stored matrix is listed, the first time that it is bound. */
void fa_bind_list_stored(fa_binder *b, const fa_weight *w, const fa_source *src, int64_t n, int64_t rows,
                         const char *name);
/* Finds out what stands in front of the checkpoint's names. */
void fa_bind_choose_prefix(fa_binder *b);
/* A family name with that in front, plus suffix. */
void fa_bind_prefixed(const fa_binder *b, char out[FA_REAL_MAX], const char *name, const char *suffix);
/* The checkpoint's spelling of a family name plus suffix. */
void fa_bind_real_name(const fa_binder *b, char out[FA_REAL_MAX], const char *name, const char *suffix);
/* By family name and suffix, under the family's other names too; NULL: there is none. */
const fa_ckpt_tensor *fa_bind_find(fa_binder *b, const char *name, const char *suffix);
void fa_bind_used(fa_binder *b, const fa_ckpt_tensor *t, fa_use how);
/* Host memory for planes that are made from others: it lives until they are where they belong. NULL in a dry run, when
 * sizes are all that is wanted, and when there is no memory (an error then). */
uint8_t *fa_bind_host(fa_binder *b, size_t bytes);
bool fa_bind_dry(const fa_binder *b);
/* What is stored as n matrices [rows, cols] one after the other (n 0: a plain matrix): w, whole, with host addresses.
 * False: absent (nothing is reported) or wrong (reported; src->t is set). */
bool fa_bind_stored(fa_binder *b, fa_weight *w, fa_source *src, int64_t n, int64_t rows, int64_t cols,
                    const char *name);
/* Matrices of other quantizers (bind_import.c). Is one stored under this name? Then its tensors are in s. */
bool fa_bind_imports(fa_binder *b, fa_source *s, int64_t n, const char *name);
bool fa_bind_import(fa_binder *b, fa_weight *w, fa_source *s, int64_t n, int64_t rows, const char *name);
/* Two E2M1 codes a byte (bind_fp4.c): is it that, of tensors that were found, and then as above. */
bool fa_bind_is_fp4(const fa_ckpt_tensor *codes);
bool fa_bind_import_fp4(fa_binder *b, fa_weight *w, fa_source *s, const char *name);
/* Moves w, whole, to where it is to lie. */
void fa_bind_relocate(fa_binder *b, fa_weight *w, const fa_source *src);
/* The same for random weights. */
void fa_bind_synth(fa_binder *b, fa_weight *w, int64_t n, const char *name);
uint64_t fa_bind_synth_seed(fa_binder *b); /* of the next random vector */
/* each > 0: n floats as rows of that many. */
const float *fa_bind_synth_vector(fa_binder *b, int64_t n, int64_t each, float mean, const char *name,
                                  const char *suffix);
/* n floats where they are to lie: values go to *host unless it is NULL. t: whose they are, or NULL. */
const float *fa_bind_place_vector(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, float **host);
void fa_bind_count(fa_binder *b, const fa_weight *w, int64_t bytes);

#endif
