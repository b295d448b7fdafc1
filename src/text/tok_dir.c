/* Which tokenizer a folder or a file holds: decided by what is there, and by the content where one name stands for two
 * kinds (tokenizer.model). */
#include "text/tok_files.h"
#include "base/alloc.h"
#include "base/map.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

enum { MAX_FILE = 1 << 30, N_BESIDE = 4 };

/* ---- the JSON files beside ---- */

typedef struct beside {
    fa_json *doc[N_BESIDE];
    fa_tok_about about;
} beside;

static void beside_free(beside *b) {
    for (int i = 0; i < N_BESIDE; i++) fa_json_free(b->doc[i]);
}

static int beside_load(beside *b, const char *dir, fa_error *err) {
    static const char *const name[N_BESIDE] = {"config.json", "tokenizer_config.json", "special_tokens_map.json",
                                               "added_tokens.json"};
    const fa_jnode *root[N_BESIDE] = {0};
    int rc = FFAI_OK;
    for (int i = 0; i < N_BESIDE && !rc; i++) {
        fa_buf path = {0};
        fa_buf_printf(&path, "%s/%s", dir, name[i]);
        if (path.failed)
            rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir);
        else if (fa_path_is_file(path.data))
            rc = fa_json_load_python(&b->doc[i], path.data, err);
        if (b->doc[i]) root[i] = fa_json_root(b->doc[i]);
        fa_buf_free(&path);
    }
    b->about.model = root[0];
    b->about.config = root[1];
    b->about.special = root[2];
    b->about.added = root[3];
    return rc;
}

/* ---- kinds ---- */

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A JSON file by itself: tekken.json by its keys, otherwise tokenizer.json. */
static int from_json(fa_tok **out, const char *data, size_t len, const char *path, fa_error *err) {
    if (strncmp(base_name(path), "tekken", 6) == 0) return fa_tok_from_tekken(out, data, len, path, err);
    return fa_tok_from_json(out, data, len, NULL, 0, path, err);
}

static int from_bytes(fa_tok **out, const char *data, size_t len, const fa_tok_about *about, const char *path,
                      fa_error *err) {
    if (ends(path, ".json")) return from_json(out, data, len, path, err);
    if (ends(path, ".txt")) return fa_tok_from_word_list(out, data, len, about, path, err);
    if (fa_tok_is_rank_file(data, len) || ends(path, ".tiktoken"))
        return fa_tok_from_ranks(out, data, len, about, path, err);
    return fa_tok_from_spm(out, data, len, about, path, err);
}

/* about: what stands beside, NULL for nothing. */
static int from_path(fa_tok **out, const char *path, const fa_tok_about *about, fa_error *err) {
    char *data;
    size_t len;
    fa_tok_about a = {0};
    *out = NULL;
    if (about) a = *about;
    a.file = base_name(path);
    int rc = fa_read_file(&data, &len, path, MAX_FILE, err);
    if (rc) return rc;
    rc = from_bytes(out, data, len, &a, path, err);
    fa_free(data);
    return rc;
}

/* vocab.json with merges.txt in the same folder. */
static int from_vocab_json(fa_tok **out, const char *dir, const fa_tok_about *about, fa_error *err) {
    fa_buf path = {0};
    char *vocab = NULL, *merges = NULL;
    size_t n_vocab = 0, n_merges = 0;
    *out = NULL;
    fa_buf_printf(&path, "%s/vocab.json", dir);
    int rc = path.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir) : FFAI_OK;
    if (!rc) rc = fa_read_file(&vocab, &n_vocab, path.data, MAX_FILE, err);
    path.len = 0;
    fa_buf_printf(&path, "%s/merges.txt", dir);
    if (!rc && path.failed) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir);
    if (!rc) rc = fa_read_file(&merges, &n_merges, path.data, MAX_FILE, err);
    if (!rc) rc = fa_tok_from_vocab(out, vocab, n_vocab, merges, n_merges, about, dir, err);
    fa_free(vocab);
    fa_free(merges);
    fa_buf_free(&path);
    return rc;
}

/* ---- folders ---- */

/* Without memory of its own: a look must not turn "out of memory" into "not there". */
static bool has(const char *dir, const char *name) {
    char path[4096]; /* the system opens no longer ones */
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n > 0 && (size_t)n < sizeof path && fa_path_is_file(path);
}

/* The first name, in order, that ends in .tiktoken, or that is mistral-common's tokenizer.model.v3; "" when there is
 * none. */
static void scan_dir(const char *dir, char *name, size_t cap) {
    *name = 0;
    DIR *d = opendir(dir);
    if (!d) return;
    for (const struct dirent *e; (e = readdir(d));) {
        const char *version = strstr(e->d_name, ".model.v");
        if (!ends(e->d_name, ".tiktoken") && !(version && version[8] >= '0' && version[8] <= '9')) continue;
        if (strlen(e->d_name) < cap && (!*name || strcmp(e->d_name, name) < 0)) strcpy(name, e->d_name);
    }
    closedir(d);
}

static int from_name(fa_tok **out, const char *dir, const char *name, const fa_tok_about *about, fa_error *err) {
    fa_buf path = {0};
    fa_buf_printf(&path, "%s/%s", dir, name);
    int rc = path.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir) : from_path(out, path.data, about, err);
    fa_buf_free(&path);
    return rc;
}

static int from_folder(fa_tok **out, const char *dir, fa_error *err) {
    static const char *const models[] = {
        "tekken.json",  "tokenizer.model",     "tiktoken.model", "sentencepiece.bpe.model",
        "spiece.model", "sentencepiece.model", "spm.model"};
    enum { N_MODEL = sizeof models / sizeof *models };
    char other[256];
    beside b = {0};
    int rc = beside_load(&b, dir, err);
    size_t i = 0;
    while (i < N_MODEL && !has(dir, models[i])) i++;
    scan_dir(dir, other, sizeof other);
    if (rc)
        *out = NULL;
    else if (i < N_MODEL)
        rc = from_name(out, dir, models[i], &b.about, err);
    else if (has(dir, "vocab.json") && has(dir, "merges.txt"))
        rc = from_vocab_json(out, dir, &b.about, err);
    else if (has(dir, "vocab.txt"))
        rc = from_name(out, dir, "vocab.txt", &b.about, err);
    else if (*other)
        rc = from_name(out, dir, other, &b.about, err);
    else
        rc = fa_fail(err, FFAI_EIO,
                     "%s/tokenizer.json: no such file, nor tekken.json, tokenizer.model, vocab.json with merges.txt, "
                     "vocab.txt or a .tiktoken file",
                     dir);
    beside_free(&b);
    return rc;
}

int fa_tok_from_dir(fa_tok **out, const char *dir, fa_error *err) {
    *out = NULL;
    return has(dir, "tokenizer.json") ? fa_tok_from_hf_dir(out, dir, err) : from_folder(out, dir, err);
}

bool fa_tok_is_file(const char *path) {
    return fa_path_is_file(path) && (ends(path, ".json") || ends(path, ".txt") || ends(path, ".model") ||
                                     ends(path, ".tiktoken") || strstr(base_name(path), ".model.v"));
}

int fa_tok_from_file(fa_tok **out, const char *path, fa_error *err) {
    *out = NULL;
    if (strcmp(base_name(path), "vocab.json") != 0) return from_path(out, path, NULL, err);
    fa_buf dir = {0};
    size_t n = (size_t)(base_name(path) - path);
    fa_buf_add(&dir, n ? path : "./", n ? n : 2);
    int rc = dir.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", path) : from_vocab_json(out, dir.data, NULL, err);
    fa_buf_free(&dir);
    return rc;
}
