/* Random weights in place of a checkpoint's: for benchmarks of published shapes without their files. */
#ifndef FA_FAMILIES_SYNTH_H
#define FA_FAMILIES_SYNTH_H

#include "base/mem.h"
#include "tensor/qfmt.h"

/* What the matrices are stored as. */
typedef struct fa_synth {
    uint8_t fmt; /* fa_fmt */
    uint8_t bits;
    uint16_t group;
    bool widened; /* the same values, as f32 */
} fa_synth;

/* "affine4g64", "mxfp4", "bf16", "q8_0", ...: the list is in the message for any other text. "f32:" before it: what the
 * format makes of the values, as plain floats. */
int fa_synth_parse(fa_synth *s, const char *text, fa_error *err);
/* Fills in format and strides of w, whose rows and cols are set. A row length that the format does not take makes that
 * matrix bf16. */
void fa_synth_shape(const fa_synth *s, fa_weight *w);
/* The same, and the planes (in mem). Values are about N(0, 1 / cols) wide. seed: any, per tensor. */
int fa_synth_matrix(const fa_synth *s, fa_weight *w, uint64_t seed, fa_mem *mem, fa_error *err);
/* [n] values: mean + up to +-spread. */
void fa_synth_fill(float *p, int64_t n, float mean, float spread, uint64_t seed);
const float *fa_synth_vector(int64_t n, float mean, float spread, uint64_t seed, fa_mem *mem);

#endif
