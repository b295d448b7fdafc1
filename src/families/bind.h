/* The binder: finds a family's tensors in a checkpoint, checks them and turns them into views that kernels read. Used
 * by the loader. */
#ifndef FA_FAMILIES_BIND_H
#define FA_FAMILIES_BIND_H

#include "base/buf.h"
#include "families/family.h"
#include "families/synth.h"
#include "io/ckpt.h"
#include "io/st_write.h"

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
    fa_mem temp;   /* vectors as f32, and the lists */
    fa_copy *copy;
    fa_synth_job *job;
    size_t n_copy, cap_copy, n_job, cap_job;
} fa_placer;

struct fa_binder {
    const fa_ckpt *ckpt;
    fa_mem *mem;
    const fa_jnode *quant;   /* config's "quantization" or NULL */
    const char *body, *head; /* what stands for "model." and before "lm_head" in this checkpoint */
    uint8_t *used;           /* [tensors of the checkpoint] 1: bound; 2: bound as a matrix in a computed format */
    fa_buf missing;          /* names, comma-separated */
    int n_missing;
    int64_t n_param, bytes;
    int64_t fmt_bytes[FA_FMT_COUNT]; /* by format */
    int64_t format_bytes;            /* of the largest matrix so far, whose format names the checkpoint's */
    char format[32];
    bool headless;         /* a base model without lm_head */
    bool private_copy;     /* copy matrices out of the mapping and drop its pages */
    const fa_synth *synth; /* make random weights instead of looking for tensors; NULL: no */
    fa_st_item *item;      /* synth: every array made, [n_item], in model memory */
    size_t n_item, cap_item;
    fa_placer *placer; /* weights lie elsewhere; NULL: in the mapping and in model memory */
    fa_error err;
};

int fa_binder_open(fa_binder *b, const fa_ckpt *ckpt, fa_mem *mem, fa_error *err);
/* Reports what failed or is missing. */
int fa_binder_finish(fa_binder *b, fa_error *err);
void fa_binder_close(fa_binder *b);
int fa_placer_open(fa_placer *p, const fa_ckpt *ckpt, fa_error *err);
void fa_placer_close(fa_placer *p);
/* A small float tensor as f32 in model memory by its family name; NULL when absent or of another length. */
const float *fa_bind_floats(fa_binder *b, int64_t n, const char *name);

#endif
