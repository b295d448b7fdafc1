/* Conversations as lists of JSON messages. */
#define _POSIX_C_SOURCE 200809L
#include "cli/dialog.h"
#include "cli/out.h"
#include "cli/text_in.h"
#include "io/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const role_name[] = {"system", "user", "assistant"};

void dialog_free(dialog *d) {
    dialog_cut(d, 0);
    free(d->msg);
    free(d->tools);
    memset(d, 0, sizeof *d);
}

void dialog_cut(dialog *d, size_t keep) {
    while (d->n > keep) free(d->msg[--d->n].json);
}

bool dialog_add_json(dialog *d, dialog_role role, char *json) {
    if (json && d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 16;
        dialog_message *more = (dialog_message *)realloc(d->msg, cap * sizeof *more);
        if (more) {
            d->msg = more;
            d->cap = cap;
        }
    }
    if (!json || d->n == d->cap) {
        free(json);
        return false;
    }
    d->msg[d->n++] = (dialog_message){role, json};
    return true;
}

static char *text_message(dialog_role role, const char *text, size_t len) {
    char *json = NULL;
    size_t size;
    FILE *f = open_memstream(&json, &size);
    if (!f) return NULL;
    out_json j;
    out_json_begin(&j, f, false);
    j.bare = true;
    out_json_open(&j, NULL, '{');
    out_json_str(&j, "role", role_name[role]);
    out_json_strn(&j, "content", text, len);
    out_json_close(&j, '}');
    if (fclose(f) == 0) return json;
    free(json);
    return NULL;
}

bool dialog_add(dialog *d, dialog_role role, const char *text, size_t len) {
    return dialog_add_json(d, role, text_message(role, text, len));
}

bool dialog_set_system(dialog *d, const char *text) {
    bool has = d->n && d->msg[0].role == ROLE_SYSTEM;
    if (has && *text) {
        char *json = text_message(ROLE_SYSTEM, text, strlen(text));
        if (!json) return false;
        free(d->msg[0].json);
        d->msg[0].json = json;
    } else if (has) {
        free(d->msg[0].json);
        memmove(d->msg, d->msg + 1, --d->n * sizeof *d->msg);
    } else if (*text) {
        if (!dialog_add(d, ROLE_SYSTEM, text, strlen(text))) return false;
        dialog_message m = d->msg[d->n - 1];
        memmove(d->msg + 1, d->msg, (d->n - 1) * sizeof *d->msg);
        d->msg[0] = m;
    }
    return true;
}

size_t dialog_first(const dialog *d) { return d->n && d->msg[0].role == ROLE_SYSTEM ? 1 : 0; }

static void write_members(FILE *f, const dialog *d, size_t from, const char *line) {
    size_t first = dialog_first(d);
    fputs("\"messages\": [", f);
    for (size_t i = 0, n = 0; i < d->n; i++) {
        if (i >= first && i < from) continue;
        fprintf(f, "%s%s%s", n++ ? ", " : "", line, d->msg[i].json);
    }
    fprintf(f, "%s]", line);
    if (d->tools) fprintf(f, ", \"tools\": %s", d->tools);
}

char *dialog_json(const dialog *d, size_t from, bool generation_prompt, size_t *len) {
    char *json = NULL;
    FILE *f = open_memstream(&json, len);
    if (!f) return NULL;
    fputc('{', f);
    write_members(f, d, from, "");
    fprintf(f, ", \"add_generation_prompt\": %s", generation_prompt ? "true" : "false");
    if (d->args && *d->args) fprintf(f, ", %s", d->args);
    fputc('}', f);
    if (fclose(f) == 0) return json;
    free(json);
    return NULL;
}

/* ---- files ---- */

/* Complete or not at all: a new file takes the old one's place at the end. */
int dialog_save(const cli_opts *o, const dialog *d, const char *path) {
    size_t cap = strlen(path) + 16;
    char *temp = (char *)malloc(cap);
    if (!temp) return cli_fail(o, "%s: out of memory", path);
    snprintf(temp, cap, "%s.part", path);
    FILE *f = fopen(temp, "wb");
    bool ok = f != NULL;
    if (f) {
        fputc('{', f);
        write_members(f, d, 0, "\n  ");
        fputs("}\n", f);
        ok = !ferror(f) && fflush(f) == 0 && fsync(fileno(f)) == 0;
        if (fclose(f) != 0) ok = false;
    }
    if (ok) ok = rename(temp, path) == 0;
    int rc = ok ? 0 : cli_fail(o, "%s: %s", path, strerror(errno));
    if (!ok && f) remove(temp);
    free(temp);
    return rc;
}

/* The shortest digits that read back as the same number, and still a fraction. */
static void print_number(out_json *j, const char *key, double v) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    if (!strpbrk(text, ".en")) strcat(text, ".0");
    out_json_raw(j, key, text);
}

/* The JSON text of a node, written anew; the parser bounds its depth. */
static void print_node(out_json *j, const char *key, const fa_jnode *n) {
    size_t len = 0;
    const char *s;
    switch (fa_jtype_of(n)) {
    case FA_JNULL: out_json_raw(j, key, "null"); break;
    case FA_JBOOL: out_json_bool(j, key, fa_jbool(n, false)); break;
    case FA_JINT: out_json_int(j, key, fa_jint(n, 0)); break;
    case FA_JNUM: print_number(j, key, fa_jnum(n, 0)); break;
    case FA_JSTR:
        s = fa_jstr(n, &len);
        out_json_strn(j, key, s, len);
        break;
    default:
        out_json_open(j, key, fa_jtype_of(n) == FA_JARR ? '[' : '{');
        for (const fa_jnode *c = fa_jfirst(n); c; c = fa_jnext(c))
            print_node(j, fa_jtype_of(n) == FA_JOBJ ? fa_jkey(c, &len) : NULL, c);
        out_json_close(j, fa_jtype_of(n) == FA_JARR ? ']' : '}');
    }
}

static char *node_json(const fa_jnode *n) {
    char *json = NULL;
    size_t size;
    FILE *f = open_memstream(&json, &size);
    if (!f) return NULL;
    out_json j;
    out_json_begin(&j, f, false);
    j.bare = true;
    print_node(&j, NULL, n);
    if (fclose(f) == 0) return json;
    free(json);
    return NULL;
}

static dialog_role role_of(const char *s) {
    if (!strcmp(s, "developer")) return ROLE_SYSTEM;
    for (int r = 0; r < ROLE_OTHER; r++)
        if (!strcmp(s, role_name[r])) return (dialog_role)r;
    return ROLE_OTHER;
}

static int read_messages(const cli_opts *o, dialog *d, const char *path, const fa_jnode *root) {
    const fa_jnode *list = fa_jtype_of(root) == FA_JARR ? root : fa_jget(root, "messages");
    if (fa_jtype_of(list) != FA_JARR)
        return cli_fail(o, "%s: there is no list of messages (\"messages\": [...])", path);
    size_t i = 0;
    for (const fa_jnode *m = fa_jfirst(list); m; m = fa_jnext(m), i++) {
        const char *role = fa_jstr(fa_jget(m, "role"), NULL);
        if (!role) return cli_fail(o, "%s: message %zu has no \"role\"", path, i);
        if (!dialog_add_json(d, role_of(role), node_json(m))) return cli_fail(o, "%s: out of memory", path);
    }
    const fa_jnode *tools = fa_jget(root, "tools");
    if (fa_jtype_of(tools) == FA_JARR && !(d->tools = node_json(tools))) return cli_fail(o, "%s: out of memory", path);
    return 0;
}

static int parse_file(const cli_opts *o, opt_id id, const char *path, fa_json **j) {
    char *text;
    size_t len;
    ffai_error err;
    int rc = text_read(o, id, path, &text, &len);
    if (rc) return rc;
    rc = fa_json_parse(j, text, len, path, &err);
    free(text);
    return rc ? cli_fail(o, "%s", err.msg) : 0;
}

int dialog_load(const cli_opts *o, dialog *d, const char *path) {
    dialog fresh = {.args = d->args};
    fa_json *j = NULL;
    ffai_error err;
    if (fa_json_load(&j, path, &err)) return cli_fail(o, "%s", err.msg);
    int rc = read_messages(o, &fresh, path, fa_json_root(j));
    fa_json_free(j);
    if (rc) {
        dialog_free(&fresh);
        return rc;
    }
    if (!fresh.tools) { /* tools of the command line stay */
        fresh.tools = d->tools;
        d->tools = NULL;
    }
    dialog_free(d);
    *d = fresh;
    return 0;
}

/* ---- options ---- */

/* A value that is JSON stays, anything else is text. */
static void print_value(out_json *j, const char *key, const char *value) {
    fa_json *doc = NULL;
    if (fa_json_parse(&doc, value, strlen(value), "", NULL) == 0)
        print_node(j, key, fa_json_root(doc));
    else
        out_json_str(j, key, value);
    fa_json_free(doc);
}

int dialog_args(const cli_opts *o, opt_id id, char **members) {
    const cli_value *v = &o->v[id];
    size_t size;
    *members = NULL;
    if (!v->n) return 0;
    FILE *f = open_memstream(members, &size);
    if (!f) return cli_fail(o, "out of memory");
    int rc = 0;
    for (size_t i = 0; i < v->n && !rc; i++) {
        const char *eq = strchr(v->strs[i], '=');
        if (!eq || eq == v->strs[i]) {
            rc = cli_usage(o, "--%s %s: NAME=VALUE is expected", cli_options[id].name, v->strs[i]);
            break;
        }
        char *key = strndup(v->strs[i], (size_t)(eq - v->strs[i]));
        out_json j;
        out_json_begin(&j, f, false);
        j.bare = true;
        if (i) fputs(", ", f);
        if (key)
            print_value(&j, key, eq + 1);
        else
            rc = cli_fail(o, "out of memory");
        free(key);
    }
    if (fclose(f) != 0 && !rc) rc = cli_fail(o, "out of memory");
    if (rc) {
        free(*members);
        *members = NULL;
    }
    return rc;
}

int dialog_tools(const cli_opts *o, opt_id id, char **json) {
    fa_json *j = NULL;
    *json = NULL;
    if (!cli_has(o, id)) return 0;
    const char *path = cli_str(o, id, "");
    int rc = parse_file(o, id, path, &j);
    if (rc) return rc;
    const fa_jnode *root = fa_json_root(j), *list = fa_jtype_of(root) == FA_JOBJ ? fa_jget(root, "tools") : root;
    if (fa_jtype_of(list) != FA_JARR)
        rc = cli_fail(o, "--%s %s: an array of tools is expected", cli_options[id].name, path);
    else if (!(*json = node_json(list)))
        rc = cli_fail(o, "--%s %s: out of memory", cli_options[id].name, path);
    fa_json_free(j);
    return rc;
}
