/* Loads tekken.json (Mistral): a vocabulary of byte strings behind a block of special tokens. The vocabulary is cut to
 * the size that the file asks for, and the block is filled up with <SPECIAL_n>. Text that spells a special token is
 * plain text, as in mistral-common. */
#include "text/tok_files.h"
#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

/* Special tokens of files up to v7 that list none. */
static const char *const old_special[] = {"<unk>",
                                          "<s>",
                                          "</s>",
                                          "[INST]",
                                          "[/INST]",
                                          "[AVAILABLE_TOOLS]",
                                          "[/AVAILABLE_TOOLS]",
                                          "[TOOL_RESULTS]",
                                          "[/TOOL_RESULTS]",
                                          "[TOOL_CALLS]",
                                          "[IMG]",
                                          "<pad>",
                                          "[IMG_BREAK]",
                                          "[IMG_END]",
                                          "[PREFIX]",
                                          "[MIDDLE]",
                                          "[SUFFIX]",
                                          "[SYSTEM_PROMPT]",
                                          "[/SYSTEM_PROMPT]",
                                          "[TOOL_CONTENT]"};
enum { N_OLD = sizeof old_special / sizeof *old_special, MAX_SPECIAL = 1 << 20 };

typedef struct tekken {
    fa_tok *t;
    const fa_jnode *vocab, *special, *config;
    int64_t n_special, n_vocab; /* ids: the special tokens, then the vocabulary */
    fa_buf bytes, scratch;
} tekken;

/* Number of the version: 3 for "v3"; -1 for anything else. */
static int version_of(const char *s) {
    int v = 0;
    if (!s || *s++ != 'v' || !*s) return -1;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || v > 999) return -1;
        v = v * 10 + *s - '0';
    }
    return v;
}

static int read_sizes(tekken *k, fa_error *err) {
    const char *what = k->t->what, *version = fa_jstr(fa_jget(k->config, "version"), NULL);
    int64_t size = fa_jint(fa_jget(k->config, "default_vocab_size"), -1);
    k->n_special = fa_jint(fa_jget(k->config, "default_num_special_tokens"), -1);
    if (fa_jtype_of(k->config) != FA_JOBJ) return fa_fail(err, FFAI_EFORMAT, "%s: config is not an object", what);
    if (version_of(version) < 0)
        return fa_fail(err, FFAI_EFORMAT, "%s: config.version is \"%.40s\"", what, version ? version : "(none)");
    if (fa_jtype_of(k->vocab) != FA_JARR) return fa_fail(err, FFAI_EFORMAT, "%s: vocab is not an array", what);
    if (fa_jtype_of(k->special) != FA_JARR && version_of(version) > 7)
        return fa_fail(err, FFAI_EFORMAT, "%s: special_tokens is missing, which version %s needs", what, version);
    if (k->n_special < 0 || k->n_special > MAX_SPECIAL)
        return fa_fail(err, FFAI_EFORMAT, "%s: config.default_num_special_tokens is %lld", what,
                       (long long)k->n_special);
    k->n_vocab = size - k->n_special;
    if (size < 0 || k->n_vocab < 0 || (uint64_t)k->n_vocab > fa_jlen(k->vocab))
        return fa_fail(err, FFAI_EFORMAT,
                       "%s: config.default_vocab_size is %lld with %lld special tokens and a vocab of %zu", what,
                       (long long)size, (long long)k->n_special, fa_jlen(k->vocab));
    return FFAI_OK;
}

static int read_vocab(tekken *k, fa_error *err) {
    const fa_jnode *v = fa_jfirst(k->vocab);
    char where[40];
    for (int64_t i = 0; i < k->n_vocab; i++, v = fa_jnext(v)) {
        size_t n;
        const char *s = fa_jstr(fa_jget(v, "token_bytes"), &n);
        int64_t rank = fa_jint(fa_jget(v, "rank"), -1);
        snprintf(where, sizeof where, "vocab[%lld]", (long long)i);
        if (rank != i)
            return fa_fail(err, FFAI_EFORMAT, "%s: %s.rank is %lld, not its place", k->t->what, where, (long long)rank);
        if (!s || (!fa_base64(s, n, &k->bytes) && !k->bytes.failed))
            return fa_fail(err, FFAI_EFORMAT, "%s: %s.token_bytes is not base64: \"%.40s\"", k->t->what, where,
                           s ? s : "(none)");
        if (k->bytes.failed) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", k->t->what);
        if (i < 256 && (k->bytes.len != 1 || (unsigned char)k->bytes.data[0] != i))
            return fa_fail(err, FFAI_EFORMAT, "%s: %s is not the single byte 0x%02X", k->t->what, where, (unsigned)i);
        if (!k->bytes.len) return fa_fail(err, FFAI_EFORMAT, "%s: %s.token_bytes is empty", k->t->what, where);
        int rc = fa_tok_put_bytes(k->t, (uint32_t)(k->n_special + i), &k->bytes, where, &k->scratch, err);
        if (rc) return rc;
    }
    return FFAI_OK;
}

static int put_special(tekken *k, const char *s, size_t n, int64_t id, fa_error *err) {
    size_t before = k->t->n_added;
    if (id < 0 || id >= k->n_special)
        return fa_fail(err, FFAI_EFORMAT, "%s: special token \"%.60s\" has rank %lld of %lld", k->t->what, s,
                       (long long)id, (long long)k->n_special);
    if (fa_strtab_has(&k->t->name, id))
        return fa_fail(err, FFAI_EFORMAT, "%s: special token \"%.60s\" has the rank %lld of another", k->t->what, s,
                       (long long)id);
    int rc = fa_tok_put_special(k->t, s, n, id, err);
    if (!rc && k->t->n_added == before)
        rc = fa_fail(err, FFAI_EFORMAT, "%s: special token \"%.60s\" is empty or there twice", k->t->what, s);
    return rc;
}

static int read_special(tekken *k, fa_error *err) {
    size_t listed = fa_jtype_of(k->special) == FA_JARR ? fa_jlen(k->special) : N_OLD, i = 0;
    int rc = FFAI_OK;
    if (listed > (uint64_t)k->n_special)
        return fa_fail(err, FFAI_EFORMAT, "%s: %zu special tokens, config.default_num_special_tokens is %lld",
                       k->t->what, listed, (long long)k->n_special);
    k->t->added = FA_NEWN(fa_added, (size_t)k->n_special + 1);
    if (!k->t->added || !fa_smap_reserve(&k->t->added_id, (size_t)k->n_special))
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", k->t->what);
    if (fa_jtype_of(k->special) == FA_JARR) {
        for (const fa_jnode *v = fa_jfirst(k->special); v && !rc; v = fa_jnext(v), i++) {
            size_t n;
            const char *s = fa_jstr(fa_jget(v, "token_str"), &n);
            if (!s) return fa_fail(err, FFAI_EFORMAT, "%s: special_tokens[%zu] has no token_str", k->t->what, i);
            rc = put_special(k, s, n, fa_jint(fa_jget(v, "rank"), -1), err);
        }
    } else {
        for (; i < N_OLD && !rc; i++) rc = put_special(k, old_special[i], strlen(old_special[i]), (int64_t)i, err);
    }
    for (; i < (size_t)k->n_special && !rc; i++) {
        char name[32];
        int n = snprintf(name, sizeof name, "<SPECIAL_%zu>", i);
        rc = put_special(k, name, (size_t)n, (int64_t)i, err);
    }
    return rc;
}

static int load(tekken *k, const fa_jnode *root, fa_error *err) {
    fa_tok *t = k->t;
    size_t n;
    const char *pattern;
    k->vocab = fa_jget(root, "vocab");
    k->special = fa_jget(root, "special_tokens");
    k->config = fa_jget(root, "config");
    int rc = read_sizes(k, err);
    if (!rc && !(pattern = fa_jstr(fa_jget(k->config, "pattern"), &n)))
        rc = fa_fail(err, FFAI_EFORMAT, "%s: config.pattern is missing", t->what);
    if (!rc) rc = fa_tok_put_words(t, pattern, n, err);
    if (!rc) rc = read_vocab(k, err);
    if (!rc) rc = fa_tok_ranks_done(t, err);
    if (!rc) rc = read_special(k, err);
    if (rc) return rc;
    t->bos = fa_tok_id(t, "<s>", 3);
    t->eos = fa_tok_id(t, "</s>", 4);
    t->pad = fa_tok_id(t, "<pad>", 5);
    t->unk = fa_tok_id(t, "<unk>", 5);
    t->plain_special = t->special_breaks = true;
    rc = fa_tok_wrap(t, &t->bos, t->bos >= 0, NULL, 0, err);
    return rc ? rc : fa_tok_finish(t, err);
}

int fa_tok_from_tekken(fa_tok **out, const char *json, size_t len, const char *what, fa_error *err) {
    fa_json *j;
    *out = NULL;
    int rc = fa_json_parse(&j, json, len, what, err);
    if (rc) return rc;
    tekken k = {.t = fa_tok_alloc(what)};
    rc = k.t ? load(&k, fa_json_root(j), err) : fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", what);
    fa_buf_free(&k.bytes);
    fa_buf_free(&k.scratch);
    fa_json_free(j);
    if (rc)
        fa_tok_free(k.t);
    else
        *out = k.t;
    return rc;
}
