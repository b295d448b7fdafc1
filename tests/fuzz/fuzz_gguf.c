/* Any bytes as a GGUF file: all metadata and the ends of all tensors are read, and the metadata go through the
 * translation to a config. */
#include <stdlib.h>
#include <string.h>

#include "io/ckpt_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t read_value(const fa_gguf_value *v) {
    size_t pos = 0, len, sum = strlen(v->key);
    const char *s;
    uint64_t strings = 0;
    if (v->type == FA_GGUF_STR)
        for (uint64_t i = 0; i < v->n; i++) sum += v->data[i];
    if (v->type == FA_GGUF_ARR && v->elem != FA_GGUF_STR)
        for (uint64_t i = 0; i < v->n; i++) sum += fa_gguf_num_at(v, i) != 0;
    while (fa_gguf_next_str(v, &pos, &s, &len)) {
        if (len) sum += (unsigned char)s[len - 1];
        strings++;
    }
    if (v->type == FA_GGUF_ARR && v->elem == FA_GGUF_STR && strings != v->n) abort();
    return sum;
}

/* What the translation writes must be JSON. */
static void translate(fa_gguf *g) {
    const fa_gguf_value *arch = fa_gguf_find(g, "general.architecture");
    fa_ckpt c = {.path = NULL, .gguf = &g, .n_gguf = 1};
    fa_buf json = {0};
    fa_json *j = NULL;
    fa_error err;
    char name[256];
    for (size_t i = 0; i < fa_gguf_n_tensor(g); i++)
        fa_gguf_hf_name("gemma3", fa_gguf_tensor_at(g, i)->name, name, sizeof name);
    if (!arch || arch->type != FA_GGUF_STR || arch->n >= 64) return;
    for (uint64_t i = 0; i < arch->n; i++)
        if (arch->data[i] < 'a' || arch->data[i] > 'z') return; /* ckpt_gguf.c refuses what could break the JSON */
    if (fa_gguf_hf_config(&json, &c, "fuzz", &err) == 0 && fa_json_parse(&j, json.data, json.len, "config", &err) != 0)
        abort();
    fa_json_free(j);
    fa_buf_free(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fa_gguf *g;
    fa_error err;
    volatile size_t sink = 0;
    int rc = fa_gguf_parse(&g, data, size, "fuzz", &err);
    if ((rc == 0) != (g != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    if (!g) return 0;
    for (size_t i = 0; i < fa_gguf_n_kv(g); i++) sink = sink + read_value(fa_gguf_kv_at(g, i));
    for (size_t i = 0; i < fa_gguf_n_tensor(g); i++) {
        const fa_gguf_tensor *t = fa_gguf_tensor_at(g, i);
        if (t->bytes > size) abort();
        if (t->bytes) sink = sink + t->data[0] + t->data[t->bytes - 1];
    }
    translate(g);
    fa_gguf_free(g);
    return 0;
}
