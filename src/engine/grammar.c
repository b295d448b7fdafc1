/* Grammars of a model's output: the public side of text/grammar. */
#include "engine/model.h"

int ffai_grammar_compile(ffai_grammar **out, ffai_model *m, const char *kind, const char *text, size_t len,
                         ffai_error *err) {
    *out = NULL;
    (void)m, (void)kind, (void)text, (void)len;
    return fa_fail(err, FFAI_ENOTSUP, "grammars are not supported yet");
}
void ffai_grammar_free(ffai_grammar *g) { (void)g; }
