/* Answers: a model's output, as it streams in, split into text, reasoning and tool calls.
 *
 * Formats are rows of a table (formats.c): which tags there are and what each begins or ends, and for every kind of
 * call how far it reaches and which body parser reads it. The splitter (answer.c) knows no format; it walks the output
 * once, holds back what may still become a tag, and gives whole calls to the body parsers (body.c, body_xml.c).
 *
 * One fa_answer belongs to one thread. Its time is linear in the output whatever is written, its memory the text that
 * is held back or not yet taken. */
#ifndef FA_TEXT_ANSWER_H
#define FA_TEXT_ANSWER_H

#include "base/err.h"
#include "text/tok.h"

typedef struct fa_answer fa_answer;

typedef enum fa_answer_kind { FA_ANSWER_TEXT, FA_ANSWER_REASONING, FA_ANSWER_CALL } fa_answer_kind;

typedef struct fa_answer_part {
    fa_answer_kind kind;
    const char *text; /* UTF-8, NUL-terminated; of a call: its arguments, a JSON object */
    size_t len;
    const char *name, *id; /* of a call; id NULL when the format has none */
} fa_answer_part;

typedef struct fa_answer_opts {
    const char *format; /* a name of the table */
    const char *prompt; /* what the model was given; NULL: the answer begins with nothing open */
    size_t prompt_len;
    const char *tools; /* JSON array as chat templates take it; NULL: types of text arguments are guessed */
    const fa_tok *tok; /* its special tokens are no text; NULL: none is known. Not kept */
} fa_answer_opts;

/* Names in the order of the table; NULL past the last one. */
const char *fa_answer_format_at(size_t i);
/* The first row whose marks are all in a chat template's source: "none" when there is no such row. */
const char *fa_answer_detect(const char *source);

int fa_answer_new(fa_answer **out, const fa_answer_opts *opts, fa_error *err);
void fa_answer_free(fa_answer *a);
/* After a failure (FFAI_ENOMEM) only fa_answer_next and fa_answer_free may be called. */
int fa_answer_push(fa_answer *a, const char *text, size_t len, fa_error *err);
int fa_answer_finish(fa_answer *a, fa_error *err);
/* The next part; its strings live until the next call on a. */
bool fa_answer_next(fa_answer *a, fa_answer_part *part);
const char *fa_answer_format(const fa_answer *a);

#endif
