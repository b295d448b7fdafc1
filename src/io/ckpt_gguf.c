/* GGUF models as checkpoints: finds all parts of a split file and lists their tensors under HuggingFace names. */
#include "base/alloc.h"
#include "base/map.h"
#include "io/ckpt_impl.h"
#include "tensor/dtype.h"

#include <stdio.h>
#include <string.h>

static int no_memory(const char *path, fa_error *err) { return fa_fail(err, FFAI_ENOMEM, "%s: no memory", path); }

/* ggml type numbers that have a dtype or a row in the format table. */
static const struct {
    uint8_t ggml;
    int8_t dtype, fmt;
} types[] = {
    {0, FA_F32, FA_FMT_F32},  {1, FA_F16, FA_FMT_F16},  {30, FA_BF16, FA_FMT_BF16}, {24, FA_I8, -1},
    {25, FA_I16, -1},         {26, FA_I32, -1},         {27, FA_I64, -1},           {28, FA_F64, -1},
    {2, -1, FA_FMT_Q4_0},     {3, -1, FA_FMT_Q4_1},     {6, -1, FA_FMT_Q5_0},       {7, -1, FA_FMT_Q5_1},
    {8, -1, FA_FMT_Q8_0},     {10, -1, FA_FMT_Q2_K},    {11, -1, FA_FMT_Q3_K},      {12, -1, FA_FMT_Q4_K},
    {13, -1, FA_FMT_Q5_K},    {14, -1, FA_FMT_Q6_K},    {16, -1, FA_FMT_IQ2_XXS},   {17, -1, FA_FMT_IQ2_XS},
    {18, -1, FA_FMT_IQ3_XXS}, {19, -1, FA_FMT_IQ1_S},   {20, -1, FA_FMT_IQ4_NL},    {21, -1, FA_FMT_IQ3_S},
    {22, -1, FA_FMT_IQ2_S},   {23, -1, FA_FMT_IQ4_XS},  {29, -1, FA_FMT_IQ1_M},     {34, -1, FA_FMT_TQ1_0},
    {35, -1, FA_FMT_TQ2_0},   {39, -1, FA_FMT_MXFP4_B}, {40, -1, FA_FMT_NVFP4_B},
};

static void describe(fa_ckpt_tensor *t, const fa_gguf_tensor *g) {
    t->dtype = t->fmt = -1;
    t->type_name = fa_ggml_type_name(g->type);
    t->data = g->data;
    t->bytes = g->bytes;
    t->n_dim = g->n_dim;
    memcpy(t->dim, g->dim, g->n_dim * sizeof *g->dim);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].ggml != g->type) continue;
        t->dtype = types[i].dtype;
        t->fmt = types[i].fmt;
    }
}

static int64_t int_key(const fa_gguf *g, const char *key, int64_t otherwise) {
    const fa_gguf_value *v = fa_gguf_find(g, key);
    bool number =
        v && v->type != FA_GGUF_STR && v->type != FA_GGUF_ARR && v->type != FA_GGUF_F32 && v->type != FA_GGUF_F64;
    return number ? v->i : otherwise;
}

static int open_part(fa_ckpt *c, size_t i, const char *path, fa_error *err) {
    if (!(c->gguf_path[i] = fa_strdup(path))) return no_memory(path, err);
    return fa_gguf_open(&c->gguf[i], path, err);
}

/* path is one part of `count`; opens all of them in order. */
static int open_parts(fa_ckpt *c, const char *path, int64_t count, fa_error *err) {
    size_t stem;
    unsigned part, parts;
    if (!fa_split_name(path, ".gguf", &stem, &part, &parts))
        return fa_fail(
            err, FFAI_EINVAL,
            "%s: one of %lld parts, but its name does not end in -00001-of-%05lld.gguf, so the others cannot be found",
            path, (long long)count, (long long)count);
    if (parts != count)
        return fa_fail(err, FFAI_EFORMAT, "%s: key split.count says %lld, the file name %u", path, (long long)count,
                       parts);
    if (!(c->gguf = FA_NEWN(fa_gguf *, parts)) || !(c->gguf_path = FA_NEWN(char *, parts))) return no_memory(path, err);
    c->n_gguf = parts;
    size_t size = strlen(path) + 1;
    char *name = (char *)fa_calloc(size, 1);
    int rc = name ? FFAI_OK : no_memory(path, err);
    for (unsigned i = 0; i < parts && !rc; i++) {
        snprintf(name, size, "%.*s-%05u-of-%05u.gguf", (int)stem, path, i + 1, parts);
        if ((rc = open_part(c, i, name, err)) != 0) {
            fa_fail_prefix(err, rc, "part %u of %u", i + 1, parts);
            break;
        }
        int64_t no = int_key(c->gguf[i], "split.no", -1), n = int_key(c->gguf[i], "split.count", -1);
        if (no != (int64_t)i || n != count)
            rc = fa_fail(err, FFAI_EFORMAT, "%s: split.no %lld and split.count %lld, expected %u and %lld", name,
                         (long long)no, (long long)n, i, (long long)count);
    }
    fa_free(name);
    return rc;
}

static int open_files(fa_ckpt *c, const char *path, fa_error *err) {
    fa_gguf *g;
    int rc = fa_gguf_open(&g, path, err);
    if (rc) return rc;
    int64_t count = int_key(g, "split.count", 0);
    if (count > 1) {
        fa_gguf_free(g);
        if (count > FA_CKPT_MAX_FILES)
            return fa_fail(err, FFAI_ELIMIT, "%s: key split.count: %lld parts, the limit is %d", path, (long long)count,
                           FA_CKPT_MAX_FILES);
        return open_parts(c, path, count, err);
    }
    if (!(c->gguf = FA_NEWN(fa_gguf *, 1)) || !(c->gguf_path = FA_NEWN(char *, 1)) ||
        !(c->gguf_path[0] = fa_strdup(path))) {
        fa_gguf_free(g);
        return no_memory(path, err);
    }
    c->gguf[0] = g;
    c->n_gguf = 1;
    return FFAI_OK;
}

static int index_tensors(fa_ckpt *c, const char *arch, fa_error *err) {
    size_t total = 0;
    char hf[256];
    for (size_t i = 0; i < c->n_gguf; i++) total += fa_gguf_n_tensor(c->gguf[i]);
    int64_t want = int_key(c->gguf[0], "split.tensors.count", (int64_t)total);
    if (want != (int64_t)total)
        return fa_fail(err, FFAI_EFORMAT, "%s: key split.tensors.count says %lld tensors, the parts hold %zu",
                       c->gguf_path[0], (long long)want, total);
    if (!(c->tensor = FA_NEWN(fa_ckpt_tensor, total)) || !(c->owned = FA_NEWN(char *, total)) ||
        !fa_smap_reserve(&c->by_name, total))
        return no_memory(c->path, err);
    for (size_t i = 0; i < c->n_gguf; i++) {
        for (size_t k = 0; k < fa_gguf_n_tensor(c->gguf[i]); k++) {
            const fa_gguf_tensor *g = fa_gguf_tensor_at(c->gguf[i], k);
            fa_ckpt_tensor t = {.name = g->name, .file = c->gguf_path[i]};
            describe(&t, g);
            if (t.n_dim == 2 && fa_gguf_ssm_vector(g->name)) {
                t.n_dim = 1;
                t.dim[0] *= t.dim[1];
            }
            if (fa_gguf_hf_name(arch, g->name, hf, sizeof hf)) {
                if (!(c->owned[c->n_owned] = fa_strdup(hf))) return no_memory(c->path, err);
                t.name = c->owned[c->n_owned++];
            }
            int rc = fa_ckpt_add(c, &t, err);
            if (rc) return rc;
        }
    }
    return FFAI_OK;
}

/* general.architecture as a C string; the charset keeps it harmless in key names and JSON. */
static int read_arch(const fa_ckpt *c, char arch[64], fa_error *err) {
    const fa_gguf_value *v = fa_gguf_find(c->gguf[0], "general.architecture"),
                        *type = fa_gguf_find(c->gguf[0], "general.type");
    bool ok = v && v->type == FA_GGUF_STR && v->n > 0 && v->n < 64;
    for (uint64_t i = 0; ok && i < v->n; i++) {
        uint8_t b = v->data[i];
        ok = (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') || b == '_' || b == '-' ||
             b == '.';
    }
    if (!ok)
        return fa_fail(err, FFAI_EFORMAT, "%s: key general.architecture is missing or is no name", c->gguf_path[0]);
    memcpy(arch, v->data, v->n);
    arch[v->n] = 0;
    if (type && type->type == FA_GGUF_STR && (type->n != 5 || memcmp(type->data, "model", 5) != 0))
        return fa_fail(err, FFAI_ENOTSUP, "%s: key general.type: \"%.*s\", not a model", c->gguf_path[0],
                       type->n > 60 ? 60 : (int)type->n, (const char *)type->data);
    return FFAI_OK;
}

int fa_ckpt_open_gguf(fa_ckpt *c, const char *path, fa_error *err) {
    char arch[64];
    fa_buf json = {0};
    int rc = open_files(c, path, err);
    if (!rc) rc = read_arch(c, arch, err);
    if (!rc) rc = index_tensors(c, arch, err);
    if (!rc) rc = fa_gguf_hf_config(&json, c, c->gguf_path[0], err);
    if (!rc && json.failed) rc = no_memory(path, err);
    if (!rc) rc = fa_json_parse(&c->config, json.data, json.len, "the config made from GGUF metadata", err);
    fa_buf_free(&json);
    return rc;
}
