/* Whether a checkpoint was made for conversations, and how its answers end. */
#include "base/alloc.h"
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

enum { MAX_STOP = 256 };

static const char QUESTION[] = "NEXT-QUESTION-HERE";

/* What the template writes after an answer, without the white space around it, its first line; where that is nothing,
 * what it writes between an answer and the next question ("\nUser:"). */
static int after_answer(ffai_model *m, const char *name, char **text, fa_error *err) {
    static const char mark[] = "ANSWER-ENDS-HERE", json[] =
                                                       "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}, "
                                                       "{\"role\": \"assistant\", \"content\": \"ANSWER-ENDS-HERE\"}, "
                                                       "{\"role\": \"user\", \"content\": \"NEXT-QUESTION-HERE\"}]}";
    char *all;
    size_t len;
    int rc = ffai_chat_render(m, name, json, sizeof json - 1, &all, &len, err);
    if (rc) return rc;
    char *s = strstr(all, mark), *next = s ? strstr(s, QUESTION) : NULL;
    size_t n = 0;
    if (next) {
        *next = 0;
        s += sizeof mark - 1;
        const char *first = s + strspn(s, " \t\r\n");
        bool own_line = memchr(s, '\n', (size_t)(first - s)) != NULL; /* then it belongs to the question */
        if (!own_line) s += first - s;
        n = own_line ? (size_t)(next - s) : strcspn(s, "\r\n");
        while (n && strchr(" \t\r\n", s[n - 1])) n--;
    }
    if (n && n <= MAX_STOP && !(*text = fa_strndup(s, n)))
        rc = fa_fail(err, FFAI_ENOMEM, "no memory for a stop string");
    ffai_free(all);
    return rc;
}

int ffai_chat_stop(ffai_model *m, const char *name, char **text, ffai_error *err) {
    *text = NULL;
    return ffai_model_is_chat(m) ? 0 : after_answer(m, name, text, err);
}
