/* Whether a checkpoint was made for conversations. */
#include "engine/model.h"

#include <string.h>

bool ffai_model_is_chat(ffai_model *m) {
    const char *name, *source;
    if (ffai_model_template_at(m, 0, &name, &source, NULL) != 1) return false;
    const fa_tok *tok = fa_model_tok(m, NULL); /* completes the list of ids that end generation */
    if (!tok) return false;
    if (strstr(source, "eos_token")) return true;
    for (int i = 0; i < m->n_eos; i++) {
        const char *piece = fa_tok_piece(tok, m->eos[i], NULL);
        if (piece && *piece && strstr(source, piece)) return true;
    }
    return false;
}
