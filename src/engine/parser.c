/* Answers split into text, reasoning and tool calls: the public side of text/answer. It finds the format in the
 * checkpoint's chat templates and the special tokens in its tokenizer. */
#include "engine/model.h"
#include "base/alloc.h"
#include "text/answer/answer.h"

#include <string.h>

struct ffai_parser {
    fa_answer *answer;
};

static bool has_calls(const char *format) { return strcmp(format, "none") != 0 && strcmp(format, "think") != 0; }

/* The format of the checkpoint's templates: of the first that knows calls (a folder may hold a plain one and one for
 * tools), else of the first that knows reasoning. Without templates: "none". */
static int detect(ffai_model *m, const char **format, fa_error *err) {
    *format = "none";
    for (size_t i = 0; !has_calls(*format); i++) {
        const char *name, *source;
        int rc = ffai_model_template_at(m, i, &name, &source, err);
        if (rc < 0) return rc;
        if (rc == 0) break;
        const char *found = fa_answer_detect(source);
        if (strcmp(found, "none") != 0 && (has_calls(found) || strcmp(*format, "none") == 0)) *format = found;
    }
    return 0;
}

int ffai_parser_create(ffai_parser **out, ffai_model *m, const ffai_parser_opts *opts, ffai_error *err) {
    static const ffai_parser_opts none = {0};
    *out = NULL;
    if (!opts) opts = &none;
    fa_answer_opts o = {opts->format, opts->prompt, opts->prompt_len, opts->tools, NULL};
    int rc = 0;
    if (!o.format || strcmp(o.format, "auto") == 0) {
        if (!m) return fa_fail(err, FFAI_EINVAL, "answer format: a model or a name is needed");
        rc = detect(m, &o.format, err);
    }
    if (rc) return rc;
    if (m) {
        fa_error why;
        o.tok = fa_model_tok(m, &why);
        if (!o.tok && why.code == FFAI_ENOMEM) return fa_fail(err, why.code, "%s", why.msg);
    }
    ffai_parser *p = FA_NEW(ffai_parser);
    if (!p) return fa_fail(err, FFAI_ENOMEM, "answer: out of memory");
    rc = fa_answer_new(&p->answer, &o, err);
    if (rc)
        fa_free(p);
    else
        *out = p;
    return rc;
}

void ffai_parser_free(ffai_parser *p) {
    if (!p) return;
    fa_answer_free(p->answer);
    fa_free(p);
}

int ffai_parser_push(ffai_parser *p, const char *text, size_t len, ffai_error *err) {
    return fa_answer_push(p->answer, text, len, err);
}

int ffai_parser_finish(ffai_parser *p, ffai_error *err) { return fa_answer_finish(p->answer, err); }

bool ffai_parser_next(ffai_parser *p, ffai_part *part) {
    static const ffai_part_kind kinds[] = {
        [FA_ANSWER_TEXT] = FFAI_PART_TEXT,
        [FA_ANSWER_REASONING] = FFAI_PART_REASONING,
        [FA_ANSWER_CALL] = FFAI_PART_TOOL_CALL,
    };
    fa_answer_part a;
    memset(part, 0, sizeof *part);
    if (!fa_answer_next(p->answer, &a)) return false;
    *part = (ffai_part){kinds[a.kind], a.text, a.len, a.name, a.id};
    return true;
}

const char *ffai_parser_format(const ffai_parser *p) { return fa_answer_format(p->answer); }
const char *ffai_parser_format_at(size_t i) { return fa_answer_format_at(i); }
