/* Any bytes as an answer: the first picks the format, the second what the prompt left open and whether there are tools,
 * the third how it is cut. Whole, byte by byte and cut: the same parts; arguments are JSON objects; nothing grows. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/json.h"
#include "text/answer/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tools[] =
    "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"s\": {\"type\": \"string\"}, \"i\": "
    "{\"type\": [\"integer\", \"null\"]}, \"o\": {\"anyOf\": [{\"type\": \"object\"}, {\"type\": "
    "\"array\"}]}, \"b\": {\"type\": \"boolean\"}}}}]";

/* All parts in one text, neighbours of one kind joined. */
static void take(fa_answer *a, fa_buf *out, int *last) {
    fa_answer_part p;
    while (fa_answer_next(a, &p)) {
        if (p.len == 0 || p.text[p.len] != 0) abort();
        if (p.kind == FA_ANSWER_CALL) {
            fa_json *j;
            if (fa_json_parse(&j, p.text, p.len, "arguments", NULL) || fa_jtype_of(fa_json_root(j)) != FA_JOBJ) abort();
            fa_json_free(j);
            if (!p.name[0]) abort();
            fa_buf_printf(out, "\x01%s\x01%s\x01", p.name, p.id ? p.id : "");
        } else if (*last != (int)p.kind) {
            fa_buf_add(out, p.kind == FA_ANSWER_TEXT ? "\x02" : "\x03", 1);
        }
        *last = (int)p.kind;
        fa_buf_add(out, p.text, p.len);
    }
}

static void feed(const fa_answer_opts *o, const char *s, size_t n, uint32_t cut, fa_buf *out) {
    fa_answer *a;
    int last = FA_ANSWER_CALL;
    if (fa_answer_new(&a, o, NULL)) abort();
    for (size_t i = 0, k; i < n; i += k) {
        cut = cut < 2 ? cut : cut * 1664525u + 1013904223u;
        k = cut == 0 ? n : cut == 1 ? 1 : 1 + (cut >> 24) % 23;
        if (k > n - i) k = n - i;
        if (fa_answer_push(a, s + i, k, NULL)) abort();
        if (cut & 1) take(a, out, &last);
    }
    if (fa_answer_finish(a, NULL)) abort();
    take(a, out, &last);
    fa_answer_free(a);
    fa_buf_add(out, "", 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const prompts[] = {NULL,        "",
                                          "<think>\n", "<|start|>assistant",
                                          ">>>",       "<think>\n\n</think>\n\n",
                                          "[THINK]",   "<|start|>assistant<|channel|>analysis<|message|>"};
    size_t n_format = 0;
    if (size < 3) return 0;
    while (fa_answer_format_at(n_format)) n_format++;
    fa_answer_opts o = {.format = fa_answer_format_at(data[0] % n_format), .prompt = prompts[data[1] % 8]};
    o.prompt_len = o.prompt ? strlen(o.prompt) : 0;
    if (data[1] & 8) o.tools = tools;
    const char *s = (const char *)data + 3;
    fa_buf whole = {0}, bytes = {0}, cut = {0};
    feed(&o, s, size - 3, 0, &whole);
    feed(&o, s, size - 3, 1, &bytes);
    feed(&o, s, size - 3, 2u + data[2], &cut);
    if (whole.len > 16 * size + 256) abort();
    if (whole.len != bytes.len || memcmp(whole.data, bytes.data, whole.len) != 0) abort();
    if (whole.len != cut.len || memcmp(whole.data, cut.data, whole.len) != 0) abort();
    fa_buf_free(&whole);
    fa_buf_free(&bytes);
    fa_buf_free(&cut);
    return 0;
}
