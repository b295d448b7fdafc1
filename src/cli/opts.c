/* The option table as data, and the parser. */
#include "cli/opts.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const opt_row cli_options[OPT_COUNT] = {
#define X(id, name, letter, kind, arg, lo, hi, choices, group, help)                                                   \
    [OPT_##id] = {name, letter, KIND_##kind, arg, lo, hi, choices, GROUP_##group, help},
#include "cli/options.inc"
#undef X
};

const char *const cli_group_names[GROUP_COUNT] = {"Model",     "Input",   "Output", "Sampling",
                                                  "Diffusion", "Machine", "Report"};

/* ---- messages ---- */

static void say(const cli_opts *o, const char *fmt, va_list ap) {
    fflush(stdout);
    fprintf(stderr, o && o->cmd ? "ffai %s: " : "ffai: ", o && o->cmd ? o->cmd->name : "");
    vfprintf(stderr, fmt, ap);
}

int cli_usage(const cli_opts *o, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(o, fmt, ap);
    va_end(ap);
    fprintf(stderr, o && o->cmd ? " (see: ffai help %s)\n" : " (see: ffai help)\n", o && o->cmd ? o->cmd->name : "");
    return 2;
}

int cli_fail(const cli_opts *o, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(o, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return 1;
}

const char *cli_flag_name(opt_id id) {
    static char text[64]; /* the program has one thread when it talks about its command line */
    const opt_row *r = &cli_options[id];
    if (r->letter)
        snprintf(text, sizeof text, "-%c%s%s", r->letter, r->arg ? " " : "", r->arg ? r->arg : "");
    else
        snprintf(text, sizeof text, "--%s%s%s", r->name, r->arg ? " " : "", r->arg ? r->arg : "");
    return text;
}

/* ---- suggestions ---- */

/* Edit distance with transpositions, for words shorter than 32 bytes; longer ones are far from everything. */
static int distance(const char *a, const char *b) {
    enum { MAX = 32 };
    size_t n = strlen(a), m = strlen(b);
    int d[MAX][MAX];
    if (n >= MAX || m >= MAX) return MAX;
    for (size_t i = 0; i <= n; i++) d[i][0] = (int)i;
    for (size_t j = 0; j <= m; j++) d[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++)
        for (size_t j = 1; j <= m; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m];
}

const char *cli_nearest(const char *word, const char *const *words) {
    const char *best = NULL;
    int best_d = 1 + (int)strlen(word) / 3; /* short words must nearly match */
    if (best_d > 3) best_d = 3;
    for (; *words; words++) {
        int d = distance(word, *words);
        if (d <= best_d && (!best || d < best_d)) {
            best = *words;
            best_d = d;
        }
    }
    return best;
}

static int unknown_option(const cli_opts *o, const char *arg) {
    const char *words[OPT_COUNT + 2];
    size_t n = 0;
    for (const opt_id *id = o->cmd->options; *id != OPT_END; id++) words[n++] = cli_options[*id].name;
    words[n++] = "help";
    words[n] = NULL;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(arg, "="), arg);
    const char *bare = name + strspn(name, "-");
    const char *near = strlen(bare) > 1 ? cli_nearest(bare, words) : NULL;
    const char *owner = NULL;
    for (const cli_command *const *c = cli_commands; *c && !owner; c++)
        for (const opt_id *id = (*c)->options; *id != OPT_END; id++)
            if (!strcmp(cli_options[*id].name, bare) ||
                (name[1] != '-' && !name[2] && cli_options[*id].letter == name[1]))
                owner = (*c)->name;
    /* what is spelled right somewhere else is rather meant than a name two letters off */
    if (near && (!owner || distance(bare, near) < 2))
        return cli_usage(o, "unknown option %s; did you mean --%s?", name, near);
    if (owner) return cli_usage(o, "unknown option %s; it is an option of ffai %s", name, owner);
    return cli_usage(o, "unknown option %s", name);
}

/* ---- values ---- */

/* How the user wrote the flag, for messages. */
static const char *spelled(const opt_row *r, bool by_letter) {
    static char text[40];
    if (by_letter)
        snprintf(text, sizeof text, "-%c", r->letter);
    else
        snprintf(text, sizeof text, "--%s", r->name);
    return text;
}

static bool parse_int(const char *s, const char *end, int64_t *out) {
    char *stop;
    if (s == end || *s == ' ') return false;
    *out =
        strtoll(s, &stop, 10); /* a number too large for 64 bits becomes the largest one, and is refused by the range */
    return stop == end;
}

static int set_int(cli_opts *o, const opt_row *r, const char *flag, cli_value *v, const char *s) {
    if (!parse_int(s, s + strlen(s), &v->i)) return cli_usage(o, "%s: \"%s\" is not a whole number", flag, s);
    if ((double)v->i < r->lo || (double)v->i > r->hi)
        return cli_usage(o, "%s: %s is not between %.0f and %.0f", flag, s, r->lo, r->hi);
    return 0;
}

static int set_num(cli_opts *o, const opt_row *r, const char *flag, cli_value *v, const char *s) {
    char *stop;
    v->num = strtod(s, &stop);
    if (stop == s || *stop || *s == ' ' || !isfinite(v->num))
        return cli_usage(o, "%s: \"%s\" is not a number", flag, s);
    if (v->num < r->lo || v->num > r->hi) return cli_usage(o, "%s: %s is not between %g and %g", flag, s, r->lo, r->hi);
    return 0;
}

static int set_ints(cli_opts *o, const opt_row *r, const char *flag, cli_value *v, const char *s) {
    size_t n = 1;
    for (const char *p = s; *p; p++) n += *p == ',';
    free(v->ints);
    v->n = 0;
    v->ints = (int64_t *)calloc(n, sizeof *v->ints);
    if (!v->ints) return cli_fail(o, "%s: out of memory", flag);
    for (const char *p = s;; p++) {
        const char *end = p + strcspn(p, ",");
        int64_t x;
        if (!parse_int(p, end, &x))
            return cli_usage(o, "%s: \"%.*s\" in item %zu is not a whole number", flag,
                             end - p > 40 ? 40 : (int)(end - p), p, v->n + 1);
        if ((double)x < r->lo || (double)x > r->hi)
            return cli_usage(o, "%s: %lld is not between %.0f and %.0f", flag, (long long)x, r->lo, r->hi);
        v->ints[v->n++] = x;
        p = end;
        if (!*p) return 0;
    }
}

static int set_choice(cli_opts *o, const opt_row *r, const char *flag, cli_value *v, const char *s) {
    size_t n = strlen(s);
    for (const char *p = r->choices; n && p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strcspn(p, "|") == n && !strncmp(p, s, n)) {
            v->str = s;
            return 0;
        }
    return cli_usage(o, "%s: \"%s\" is not one of %s", flag, s, r->choices);
}

static int add_str(cli_opts *o, const char *flag, cli_value *v, const char *s) {
    const char **more = (const char **)realloc((void *)v->strs, (v->n + 1) * sizeof *more);
    if (!more) return cli_fail(o, "%s: out of memory", flag);
    v->strs = more;
    v->strs[v->n++] = s;
    return 0;
}

/* Stores one occurrence; s is NULL for flags and optional values left out. The last occurrence wins, except for
 * repeatable options. */
static int set_value(cli_opts *o, opt_id id, bool by_letter, const char *s) {
    const opt_row *r = &cli_options[id];
    cli_value *v = &o->v[id];
    const char *flag = spelled(r, by_letter);
    v->count++;
    switch (r->kind) {
    case KIND_FLAG: return 0;
    case KIND_STR: v->str = s; return 0;
    case KIND_PATH: v->str = s; return *s ? 0 : cli_usage(o, "%s: an empty path", flag);
    case KIND_STRS: return *s ? add_str(o, flag, v, s) : cli_usage(o, "%s: an empty text", flag);
    case KIND_INT: return set_int(o, r, flag, v, s);
    case KIND_NUM: return set_num(o, r, flag, v, s);
    case KIND_INTS: return set_ints(o, r, flag, v, s);
    case KIND_CHOICE: return set_choice(o, r, flag, v, s);
    case KIND_OPT_CHOICE: v->str = NULL; return s ? set_choice(o, r, flag, v, s) : 0;
    }
    return 0;
}

/* ---- the command line ---- */

static opt_id find_option(const cli_command *cmd, const char *name, size_t len, char letter) {
    for (const opt_id *id = cmd->options;; id++) {
        opt_id at = *id == OPT_END ? OPT_HELP : *id;
        const opt_row *r = &cli_options[at];
        if (letter ? r->letter == letter : strlen(r->name) == len && !strncmp(r->name, name, len)) return at;
        if (*id == OPT_END) return OPT_END;
    }
}

/* One option at argv[*i]; moves *i past a value that stands in the next argument. */
static int parse_option(cli_opts *o, int argc, char **argv, int *i) {
    const char *arg = argv[*i];
    bool by_letter = arg[1] != '-';
    const char *eq = by_letter ? NULL : strchr(arg, '=');
    const char *value = eq ? eq + 1 : by_letter && arg[2] ? arg + 2 : NULL;
    size_t len = by_letter ? 0 : (size_t)((eq ? eq : arg + strlen(arg)) - arg - 2);
    opt_id id = find_option(o->cmd, arg + 2, len, by_letter ? arg[1] : 0);
    if (id == OPT_END) return unknown_option(o, arg);

    const opt_row *r = &cli_options[id];
    if (r->kind == KIND_FLAG) {
        if (value) return cli_usage(o, "%s takes no value, \"%s\" was given", spelled(r, by_letter), value);
    } else if (!value && r->kind != KIND_OPT_CHOICE) {
        if (*i + 1 >= argc) return cli_usage(o, "%s needs a value: %s", spelled(r, by_letter), r->arg);
        value = argv[++*i];
    }
    return set_value(o, id, by_letter, value);
}

int cli_parse(cli_opts *o, const cli_command *cmd, int argc, char **argv) {
    memset(o, 0, sizeof *o);
    o->cmd = cmd;
    o->args = (const char **)calloc((size_t)argc + 1, sizeof *o->args);
    if (!o->args) return cli_fail(o, "out of memory");
    bool options = true;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (options && !strcmp(arg, "--")) {
            options = false;
        } else if (options && arg[0] == '-' && arg[1]) {
            int rc = parse_option(o, argc, argv, &i);
            if (rc) return rc;
        } else {
            o->args[o->n_args++] = arg;
        }
    }
    if (!o->v[OPT_HELP].count && o->n_args > cmd->max_args)
        return cli_usage(o, "unexpected argument \"%s\"%s", o->args[cmd->max_args],
                         find_option(cmd, "", 0, 'p') != OPT_END ? "; the text belongs to -p" : "");
    return 0;
}

void cli_opts_free(cli_opts *o) {
    for (int i = 0; i < OPT_COUNT; i++) {
        free((void *)o->v[i].strs);
        free(o->v[i].ints);
    }
    free((void *)o->args);
    memset(o, 0, sizeof *o);
}

bool cli_has(const cli_opts *o, opt_id id) { return o->v[id].count > 0; }
const char *cli_str(const cli_opts *o, opt_id id, const char *otherwise) {
    return o->v[id].str ? o->v[id].str : otherwise;
}
int64_t cli_int(const cli_opts *o, opt_id id, int64_t otherwise) { return o->v[id].count ? o->v[id].i : otherwise; }
double cli_num(const cli_opts *o, opt_id id, double otherwise) { return o->v[id].count ? o->v[id].num : otherwise; }

int cli_require(const cli_opts *o, opt_id id) {
    if (cli_has(o, id)) return 0;
    return cli_usage(o, "%s is missing", cli_flag_name(id));
}

int cli_exclusive(const cli_opts *o, const opt_id *ids) {
    opt_id first = OPT_END;
    for (; *ids != OPT_END; ids++) {
        if (!cli_has(o, *ids)) continue;
        if (first != OPT_END)
            return cli_usage(o, "--%s and --%s cannot be given together", cli_options[first].name,
                             cli_options[*ids].name);
        first = *ids;
    }
    return 0;
}
