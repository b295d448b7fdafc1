/* Constrained output: reads the file of the flag and compiles it. */
#include "cli/constraint.h"
#include "cli/text_in.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    opt_id id;
    const char *kind;
} kinds[] = {{OPT_JSON_SCHEMA, "json-schema"}, {OPT_GRAMMAR, "gbnf"}, {OPT_REGEX, "regex"}};

int constraint_check(const cli_opts *o) {
    static const opt_id ids[] = {OPT_JSON_SCHEMA, OPT_GRAMMAR, OPT_REGEX, OPT_END};
    return cli_exclusive(o, ids);
}

int constraint_compile(const cli_opts *o, ffai_model *m, ffai_grammar **g) {
    *g = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        opt_id id = kinds[i].id;
        if (!cli_has(o, id)) continue;
        const char *given = cli_str(o, id, "");
        char *text = NULL;
        size_t len = strlen(given);
        ffai_error err;
        int rc = id == OPT_REGEX ? 0 : text_read(o, id, given, &text, &len);
        if (rc) return rc;
        rc = ffai_grammar_compile(g, m, kinds[i].kind, text ? text : given, len, &err);
        free(text);
        if (!rc) return 0;
        return id == OPT_REGEX ? cli_fail(o, "--regex: %s", err.msg)
                               : cli_fail(o, "--%s %s: %s", cli_options[id].name, given, err.msg);
    }
    return 0;
}
