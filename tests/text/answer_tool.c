/* For scripts: splits answers with src/text/answer.
 *
 *   answer_tool detect < template           the format's name
 *   answer_tool formats                     all names
 *   answer_tool split < cases               a JSON object per line {"format", "prompt", "tools", "text", "cut"}; writes
 *                                           per line [["text", "..."], ["reasoning", "..."], ["call", name, id, args]];
 *                                           cut: bytes per push, 0: all at once */
#include "base/alloc.h"
#include "io/json.h"
#include "text/answer/answer_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_parts(fa_answer *a, fa_buf *out, fa_answer_kind *last) {
    static const char *const names[] = {"text", "reasoning", "call"};
    fa_answer_part p;
    while (fa_answer_next(a, &p)) {
        bool joins = p.kind != FA_ANSWER_CALL && *last == p.kind;
        if (joins) out->len -= 2; /* the quote and the bracket */
        if (!joins) fa_buf_printf(out, "%s[\"%s\", ", out->len > 1 ? ", " : "", names[p.kind]);
        if (p.kind == FA_ANSWER_CALL) {
            fa_ans_quoted(out, p.name, strlen(p.name));
            fa_buf_puts(out, ", ");
            if (p.id)
                fa_ans_quoted(out, p.id, strlen(p.id));
            else
                fa_buf_puts(out, "null");
            fa_buf_puts(out, ", ");
        }
        size_t mark = out->len;
        fa_ans_quoted(out, p.text, p.len);
        if (joins) { /* without its own opening quote */
            memmove(out->data + mark, out->data + mark + 1, out->len - mark - 1);
            out->len--;
        }
        fa_buf_puts(out, "]");
        *last = p.kind;
    }
}

static int split(const char *line, size_t n) {
    fa_json *j;
    fa_error err;
    if (fa_json_parse(&j, line, n, "case", &err)) return fprintf(stderr, "%s\n", err.msg), 1;
    const fa_jnode *r = fa_json_root(j);
    fa_answer_opts o = {.format = fa_jstr(fa_jget(r, "format"), NULL), .tools = fa_jstr(fa_jget(r, "tools"), NULL)};
    o.prompt = fa_jstr(fa_jget(r, "prompt"), &o.prompt_len);
    size_t len = 0, cut = (size_t)fa_jint(fa_jget(r, "cut"), 0);
    const char *text = fa_jstr(fa_jget(r, "text"), &len);
    fa_answer *a;
    fa_buf out = {0};
    fa_answer_kind last = FA_ANSWER_CALL;
    int rc = fa_answer_new(&a, &o, &err);
    fa_buf_puts(&out, "[");
    for (size_t i = 0, k; !rc && i < len; i += k) {
        k = cut && cut < len - i ? cut : len - i;
        rc = fa_answer_push(a, text + i, k, &err);
        put_parts(a, &out, &last);
    }
    if (!rc) rc = fa_answer_finish(a, &err);
    if (!rc) put_parts(a, &out, &last);
    if (rc)
        fprintf(stderr, "%s\n", err.msg);
    else
        printf("%s]\n", out.data);
    fa_buf_free(&out);
    fa_answer_free(a);
    fa_json_free(j);
    return rc != 0;
}

int main(int argc, char **argv) {
    fa_buf in = {0};
    char chunk[65536];
    size_t n;
    int rc = 0;
    if (argc == 2 && strcmp(argv[1], "formats") == 0) {
        for (size_t i = 0; fa_answer_format_at(i); i++) printf("%s\n", fa_answer_format_at(i));
        return 0;
    }
    while ((n = fread(chunk, 1, sizeof chunk, stdin))) fa_buf_add(&in, chunk, n);
    if (argc == 2 && strcmp(argv[1], "detect") == 0) {
        printf("%s\n", fa_answer_detect(in.data));
    } else if (argc == 2 && strcmp(argv[1], "split") == 0) {
        for (char *p = in.data, *end; p && *p && !rc; p = end + 1) {
            end = strchr(p, '\n');
            if (!end) break;
            rc = split(p, (size_t)(end - p));
        }
    } else {
        rc = 2;
    }
    fa_buf_free(&in);
    return rc;
}
