/* What requests ask of a grammar. */
#ifndef FA_ENGINE_GRAMMAR_H
#define FA_ENGINE_GRAMMAR_H

#include "engine/model.h"
#include "text/grammar/grammar.h"

/* A text under a grammar that was compiled for this model; fa_gram_run_free. */
int fa_constraint_new(fa_gram_run **out, const ffai_grammar *g, const ffai_model *m, fa_error *err);
/* Clears the bits of tokens that must not come next. 1: the text is complete and nothing but its end can follow. */
int fa_constraint_mask(fa_gram_run *r, const ffai_model *m, bool ignore_eos, uint32_t *bits, fa_error *err);

#endif
