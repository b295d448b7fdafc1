/* Answers split into text, reasoning and tool calls: the public side of text/answer. */
#include "engine/model.h"

int ffai_parser_create(ffai_parser **out, ffai_model *m, const ffai_parser_opts *opts, ffai_error *err) {
    *out = NULL;
    (void)m, (void)opts;
    return fa_fail(err, FFAI_ENOTSUP, "parsing of answers is not supported yet");
}
void ffai_parser_free(ffai_parser *p) { (void)p; }
int ffai_parser_push(ffai_parser *p, const char *text, size_t len, ffai_error *err) {
    (void)p, (void)text, (void)len;
    return fa_fail(err, FFAI_ENOTSUP, "parsing of answers is not supported yet");
}
int ffai_parser_finish(ffai_parser *p, ffai_error *err) { return ffai_parser_push(p, "", 0, err); }
bool ffai_parser_next(ffai_parser *p, ffai_part *part) {
    (void)p, (void)part;
    return false;
}
const char *ffai_parser_format(const ffai_parser *p) {
    (void)p;
    return "none";
}
const char *ffai_parser_format_at(size_t i) { return i ? NULL : "none"; }
