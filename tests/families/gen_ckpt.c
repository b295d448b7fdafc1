/* Checkpoint files of a fixture: safetensors or torch files (one or several with an index) and GGUF, byte for byte as
 * tools/fixtures/ckpt.py writes them. */
#define _POSIX_C_SOURCE 200809L
#include "families/gen.h"

#include "base/alloc.h"
#include "base/map.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static uint32_t crc32_of(const uint8_t *p, size_t n) {
    uint32_t table[256], c = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int k = 0; k < 8; k++) v = v & 1 ? v >> 1 ^ 0xEDB88320u : v >> 1;
        table[i] = v;
    }
    for (size_t i = 0; i < n; i++) c = table[(c ^ p[i]) & 0xFF] ^ c >> 8;
    return ~c;
}

static int put_file(const char *dir, const char *name, const fa_buf *b, fa_error *err) {
    char path[1024];
    if (b->failed) return fa_fail(err, FFAI_ENOMEM, "%s/%s: no memory", dir, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) return fa_fail(err, FFAI_EIO, "%s: cannot be written", path);
    bool ok = fwrite(b->data, 1, b->len, f) == b->len;
    ok = fclose(f) == 0 && ok;
    return ok ? 0 : fa_fail(err, FFAI_EIO, "%s: cannot be written", path);
}

/* A weight file: written, and compared with the checksum that Python took. root: who has it. */
static int put_weights(const fa_jnode *root, const char *dir, const char *name, const fa_buf *b, fa_error *err) {
    const char *want = fa_jstr(fa_jget(fa_jget(root, "crc32"), name), NULL);
    char have[16];
    int rc = put_file(dir, name, b, err);
    if (rc) return rc;
    snprintf(have, sizeof have, "%08x", (unsigned)crc32_of((const uint8_t *)b->data, b->len));
    if (!want || strcmp(want, have) != 0)
        return fa_fail(err, FFAI_EFORMAT, "%s/%s: crc32 is %s, the fixture says %s", dir, name, have,
                       want ? want : "nothing");
    return 0;
}

static void put_le(fa_buf *b, uint64_t v, int bytes) {
    char t[8];
    for (int i = 0; i < bytes; i++) t[i] = (char)(v >> 8 * i);
    fa_buf_add(b, t, (size_t)bytes);
}

fx_item *fx_expand(const fa_jnode *tensors, size_t *n) {
    size_t total = 0, at = 0;
    for (const fa_jnode *t = fa_jfirst(tensors); t; t = fa_jnext(t)) total += (size_t)fa_jint(fa_jget(t, "n"), 1);
    fx_item *list = FA_NEWN(fx_item, total ? total : 1);
    *n = list ? total : 0;
    for (const fa_jnode *t = list ? fa_jfirst(tensors) : NULL; t; t = fa_jnext(t)) {
        const char *name = fa_jstr(fa_jget(t, "name"), NULL);
        const char *hole = name ? strstr(name, "{}") : NULL;
        int64_t from = fa_jint(fa_jget(t, "from"), 0), k = fa_jint(fa_jget(t, "n"), 1);
        for (int64_t i = 0; i < k; i++) {
            fx_item *it = &list[at++];
            it->t = t;
            if (hole)
                snprintf(it->name, sizeof it->name, "%.*s%d%s", (int)(hole - name), name, (int)(from + i), hole + 2);
            else
                snprintf(it->name, sizeof it->name, "%s", name ? name : "?");
        }
    }
    return list;
}

/* {"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},...} padded with spaces (to 8 bytes unless the fixture says
 * how many), then data. */
static int safetensors(const fa_jnode *root, fa_buf *out, const fx_item *item, size_t n, fa_error *err) {
    fa_buf head = {0}, data = {0};
    uint64_t seed = (uint64_t)fa_jint(fa_jget(root, "seed"), 0);
    int rc = 0;
    fa_buf_puts(&head, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n && !rc; i++) {
        size_t from = data.len;
        rc = fx_tensor(&data, item[i].t, item[i].name, seed, err);
        fa_buf_printf(&head, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", item[i].name,
                      fa_jstr(fa_jget(item[i].t, "dtype"), NULL));
        const char *comma = "";
        for (const fa_jnode *d = fa_jfirst(fa_jget(item[i].t, "shape")); d; d = fa_jnext(d), comma = ",")
            fa_buf_printf(&head, "%s%lld", comma, (long long)fa_jint(d, 0));
        fa_buf_printf(&head, "],\"data_offsets\":[%zu,%zu]}", from, data.len);
    }
    fa_buf_puts(&head, "}");
    int64_t pad = fa_jint(fa_jget(root, "pad"), (int64_t)(-head.len & 7));
    for (int64_t i = 0; i < pad; i++) fa_buf_puts(&head, " ");
    put_le(out, head.len, 8);
    fa_buf_add(out, head.data, head.len);
    fa_buf_add(out, data.data, data.len);
    if (!rc && (head.failed || data.failed)) rc = fa_fail(err, FFAI_ENOMEM, "no memory for a fixture");
    fa_buf_free(&head);
    fa_buf_free(&data);
    return rc;
}

/* ---- torch files: an archive of a pickle and one member for each tensor ---- */

static void pickle_text(fa_buf *b, const char *s) {
    fa_buf_puts(b, "X");
    put_le(b, strlen(s), 4);
    fa_buf_puts(b, s);
}

static void pickle_int(fa_buf *b, int64_t v) {
    fa_buf_puts(b, "J");
    put_le(b, (uint64_t)v, 4);
}

/* Tensor number i of a dict: its name and the call that makes it. */
static void pickle_tensor(fa_buf *b, const fx_item *item, size_t i) {
    const char *dtype = fa_jstr(fa_jget(item->t, "dtype"), NULL);
    const fa_jnode *shape = fa_jget(item->t, "shape");
    char key[32];
    int64_t n = 1;
    for (const fa_jnode *d = fa_jfirst(shape); d; d = fa_jnext(d)) n *= fa_jint(d, 0);
    snprintf(key, sizeof key, "%zu", i);
    pickle_text(b, item->name);
    fa_buf_puts(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle_text(b, "storage");
    fa_buf_printf(b, "ctorch\n%sStorage\n",
                  !strcmp(dtype, "F32")   ? "Float"
                  : !strcmp(dtype, "F16") ? "Half"
                                          : "BFloat16");
    pickle_text(b, key);
    pickle_text(b, "cpu");
    pickle_int(b, n);
    fa_buf_puts(b, "tQ");
    pickle_int(b, 0);
    fa_buf_puts(b, "(");
    for (const fa_jnode *d = fa_jfirst(shape); d; d = fa_jnext(d)) pickle_int(b, fa_jint(d, 0));
    fa_buf_puts(b, "t(");
    for (const fa_jnode *d = fa_jfirst(shape); d; d = fa_jnext(d)) pickle_int(b, n /= fa_jint(d, 1));
    fa_buf_puts(b, "t\x89"
                   "ccollections\nOrderedDict\n)RtR");
}

static void zip_member(fa_buf *out, fa_buf *directory, const char *name, const void *data, size_t n) {
    char path[96];
    const int len = snprintf(path, sizeof path, "model/%s", name);
    const size_t at = out->len, pad = -(at + 30 + (size_t)len + 4) & 63;
    fa_buf fixed = {0};
    put_le(&fixed, 0, 8);
    put_le(&fixed, 0, 2);
    put_le(&fixed, crc32_of((const uint8_t *)data, n), 4);
    put_le(&fixed, n, 4);
    put_le(&fixed, n, 4);
    put_le(&fixed, (uint64_t)len, 2);
    fa_buf_puts(out, "PK\3\4");
    fa_buf_add(out, fixed.data, fixed.len);
    put_le(out, 4 + pad, 2);
    fa_buf_puts(out, path);
    fa_buf_puts(out, "FB");
    put_le(out, pad, 2);
    for (size_t i = 0; i < pad; i++) fa_buf_puts(out, "Z");
    fa_buf_add(out, data, n);
    fa_buf_puts(directory, "PK\1\2");
    put_le(directory, 0, 2);
    fa_buf_add(directory, fixed.data, fixed.len);
    put_le(directory, 0, 8);
    put_le(directory, 0, 4);
    put_le(directory, at, 4);
    fa_buf_puts(directory, path);
    fa_buf_free(&fixed);
}

static int torch_file(const fa_jnode *root, fa_buf *out, const fx_item *item, size_t n, fa_error *err) {
    fa_buf pickle = {0}, directory = {0};
    uint64_t seed = (uint64_t)fa_jint(fa_jget(root, "seed"), 0);
    int rc = 0;
    fa_buf_puts(&pickle, "\x80\2"
                         "ccollections\nOrderedDict\n)R(");
    for (size_t i = 0; i < n; i++) pickle_tensor(&pickle, &item[i], i);
    fa_buf_puts(&pickle, "u.");
    zip_member(out, &directory, "data.pkl", pickle.data, pickle.len);
    zip_member(out, &directory, "byteorder", "little", 6);
    for (size_t i = 0; i < n && !rc; i++) {
        fa_buf data = {0};
        char name[32];
        snprintf(name, sizeof name, "data/%zu", i);
        rc = fx_tensor(&data, item[i].t, item[i].name, seed, err);
        zip_member(out, &directory, name, data.data, data.len);
        fa_buf_free(&data);
    }
    zip_member(out, &directory, "version", "3\n", 2);
    const size_t at = out->len;
    fa_buf_add(out, directory.data, directory.len);
    fa_buf_puts(out, "PK\5\6");
    put_le(out, 0, 4);
    put_le(out, n + 3, 2);
    put_le(out, n + 3, 2);
    put_le(out, directory.len, 4);
    put_le(out, at, 4);
    put_le(out, 0, 2);
    if (!rc && (pickle.failed || directory.failed)) rc = fa_fail(err, FFAI_ENOMEM, "no memory for a fixture");
    fa_buf_free(&pickle);
    fa_buf_free(&directory);
    return rc;
}

/* Safetensors, or torch files. */
static int write_folder(const fx *f, const char *dir, fa_error *err) {
    const char *format = fa_jstr(fa_jget(f->root, "format"), NULL);
    const bool torch = format && !strcmp(format, "torch");
    const char *stem = torch ? "pytorch_model" : "model", *suffix = torch ? "bin" : "safetensors";
    size_t n, k = (size_t)fa_jint(fa_jget(f->root, "shards"), 1), total = 0;
    fx_item *item = fx_expand(fa_jget(f->root, "tensors"), &n);
    fa_buf map = {0}, index = {0};
    int rc = 0;
    for (size_t s = 0; s < k && !rc; s++) {
        size_t a = s * n / k, b = (s + 1) * n / k;
        char name[64];
        fa_buf out = {0};
        if (k > 1)
            snprintf(name, sizeof name, "%s-%05zu-of-%05zu.%s", stem, s + 1, k, suffix);
        else
            snprintf(name, sizeof name, "%s.%s", stem, suffix);
        rc = (torch ? torch_file : safetensors)(f->root, &out, item + a, b - a, err);
        if (!rc) rc = put_weights(f->root, dir, name, &out, err);
        for (size_t i = a; i < b; i++) fa_buf_printf(&map, "%s\"%s\":\"%s\"", i ? "," : "", item[i].name, name);
        total += out.len;
        fa_buf_free(&out);
    }
    if (!rc && k > 1) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s.index.json", stem, suffix);
        fa_buf_printf(&index, "{\"metadata\":{\"total_size\":%zu},\"weight_map\":{%s}}", total, map.data);
        rc = put_weights(f->root, dir, name, &index, err);
    }
    fa_buf_free(&map);
    fa_buf_free(&index);
    fa_free(item);
    return rc;
}

static void gguf_str(fa_buf *b, const char *s) {
    put_le(b, strlen(s), 8);
    fa_buf_puts(b, s);
}

/* Type number of a metadata kind as in the file, and its bytes (0: string). */
static int gguf_kind(const char *kind, int *bytes) {
    static const struct {
        const char *name;
        int type, bytes;
    } kinds[] = {{"u16", 2, 2},  {"u32", 4, 4}, {"i32", 5, 4}, {"f32", 6, 4},
                 {"bool", 7, 1}, {"str", 8, 0}, {"u64", 10, 8}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, kind)) {
            *bytes = kinds[i].bytes;
            return kinds[i].type;
        }
    *bytes = 4;
    return 4;
}

static void gguf_scalar(fa_buf *b, const char *kind, const fa_jnode *v) {
    int bytes, type = gguf_kind(kind, &bytes);
    if (type == 8) {
        const char *s = fa_jstr(v, NULL);
        gguf_str(b, s ? s : "");
    } else if (type == 6) {
        float x = (float)fa_jnum(v, 0);
        uint32_t u;
        memcpy(&u, &x, 4);
        put_le(b, u, 4);
    } else if (type == 7) {
        put_le(b, fa_jbool(v, false), 1);
    } else {
        put_le(b, (uint64_t)fa_jint(v, 0), bytes);
    }
}

/* One [key, kind, value] row; a kind that begins with '[' is an array. */
static void gguf_row(fa_buf *b, const fa_jnode *row) {
    const fa_jnode *key = fa_jfirst(row), *kind = fa_jnext(key), *v = fa_jnext(kind);
    const char *k = fa_jstr(key, NULL), *t = fa_jstr(kind, NULL);
    int bytes;
    if (!k || !t) return;
    gguf_str(b, k);
    if (t[0] != '[') {
        put_le(b, (uint64_t)gguf_kind(t, &bytes), 4);
        gguf_scalar(b, t, v);
        return;
    }
    put_le(b, 9, 4);
    put_le(b, (uint64_t)gguf_kind(t + 1, &bytes), 4);
    put_le(b, fa_jlen(v), 8);
    for (const fa_jnode *e = fa_jfirst(v); e; e = fa_jnext(e)) gguf_scalar(b, t + 1, e);
}

/* One GGUF file: metadata (NULL: none), the split keys of part `no` when there are several, tensors [a, b) of all n. */
typedef struct gguf_part {
    const fa_jnode *metadata;
    const fx_item *item;
    size_t n, all, no, count;
} gguf_part;

static int gguf_file(const fx *f, fa_buf *b, const gguf_part *p, fa_error *err) {
    uint64_t seed = (uint64_t)fa_jint(fa_jget(f->root, "seed"), 0);
    fa_buf data = {0};
    int rc = 0;
    fa_buf_puts(b, "GGUF");
    put_le(b, (uint64_t)fa_jint(fa_jget(f->root, "version"), 3), 4);
    put_le(b, p->n, 8);
    put_le(b, fa_jlen(p->metadata) + (p->count > 1 ? 3 : 0), 8);
    for (const fa_jnode *row = fa_jfirst(p->metadata); row; row = fa_jnext(row)) gguf_row(b, row);
    if (p->count > 1) {
        gguf_str(b, "split.no");
        put_le(b, 2, 4);
        put_le(b, p->no, 2);
        gguf_str(b, "split.count");
        put_le(b, 2, 4);
        put_le(b, p->count, 2);
        gguf_str(b, "split.tensors.count");
        put_le(b, 5, 4);
        put_le(b, p->all, 4);
    }
    for (size_t i = 0; i < p->n && !rc; i++) {
        const fa_jnode *shape = fa_jget(p->item[i].t, "shape");
        size_t nd = fa_jlen(shape);
        gguf_str(b, p->item[i].name);
        put_le(b, nd, 4);
        for (size_t d = nd; d-- > 0;) { /* innermost first */
            const fa_jnode *x = fa_jfirst(shape);
            for (size_t j = 0; j < d; j++) x = fa_jnext(x);
            put_le(b, (uint64_t)fa_jint(x, 0), 8);
        }
        put_le(b, (uint64_t)fa_jint(fa_jget(p->item[i].t, "type"), 0), 4);
        put_le(b, data.len, 8);
        rc = fx_tensor(&data, p->item[i].t, p->item[i].name, seed, err);
        while (data.len % 32 && !data.failed) put_le(&data, 0, 1);
    }
    while (b->len % 32 && !b->failed) put_le(b, 0, 1);
    fa_buf_add(b, data.data, data.len);
    if (!rc && data.failed) rc = fa_fail(err, FFAI_ENOMEM, "no memory for a fixture");
    fa_buf_free(&data);
    return rc;
}

static int write_gguf(const fx *f, const char *dir, char model[512], fa_error *err) {
    size_t n, k = (size_t)fa_jint(fa_jget(f->root, "shards"), 1);
    fx_item *item = fx_expand(fa_jget(f->root, "tensors"), &n);
    int rc = 0;
    for (size_t s = 0; s < k && !rc; s++) {
        size_t a = s * n / k, e = (s + 1) * n / k;
        gguf_part p = {s ? NULL : fa_jget(f->root, "metadata"), item + a, e - a, n, s, k};
        char name[64] = "model.gguf";
        fa_buf b = {0};
        if (k > 1) snprintf(name, sizeof name, "model-%05zu-of-%05zu.gguf", s + 1, k);
        if (!s) snprintf(model, 512, "%s/%s", dir, name);
        rc = gguf_file(f, &b, &p, err);
        if (!rc) rc = put_weights(f->root, dir, name, &b, err);
        fa_buf_free(&b);
    }
    fa_free(item);
    return rc;
}

/* ---- adapters: {"kind", "scale", "config" (text), "seed", "tensors", "crc32"} ---- */

static int write_adapter(const fa_jnode *a, const char *dir, fa_error *err) {
    const char *kind = fa_jstr(fa_jget(a, "kind"), NULL), *config = fa_jstr(fa_jget(a, "config"), NULL),
               *file = kind && !strcmp(kind, "mlx") ? "adapters.safetensors" : "adapter_model.safetensors";
    size_t n;
    fa_buf text = {0}, out = {0};
    fx_item *item = fx_expand(fa_jget(a, "tensors"), &n);
    mkdir(dir, 0777);
    fa_buf_puts(&text, config ? config : "");
    int rc = put_file(dir, "adapter_config.json", &text, err);
    if (!rc) rc = safetensors(a, &out, item, n, err);
    if (!rc) rc = put_weights(a, dir, file, &out, err);
    fa_buf_free(&text);
    fa_buf_free(&out);
    fa_free(item);
    return rc;
}

static int write_adapters(const fx *f, const char *dir, fa_error *err) {
    int rc = 0, i = 0;
    for (const fa_jnode *a = fa_jfirst(f->adapters); a && !rc; a = fa_jnext(a)) {
        char path[640];
        snprintf(path, sizeof path, "%s/adapter%d", dir, i++);
        rc = write_adapter(a, path, err);
    }
    return rc;
}

int fx_open(fx *f, const char *data_dir, const char *name, fa_error *err) {
    char path[640];
    memset(f, 0, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "%s/%s", data_dir, name);
    snprintf(f->golden, sizeof f->golden, "%s/golden.npy", f->dir);
    snprintf(path, sizeof path, "%s/fixture.json", f->dir);
    int rc = fa_json_load(&f->doc, path, err);
    if (rc) return rc;
    f->root = fa_json_root(f->doc);
    const char *base = fa_jstr(fa_jget(f->root, "weights"), NULL);
    if (base) {
        snprintf(path, sizeof path, "%s/%s/fixture.json", data_dir, base);
        if ((rc = fa_json_load(&f->base_doc, path, err))) return rc;
        f->adapters = fa_jget(f->root, "adapters");
        f->root = fa_json_root(f->base_doc);
        f->twin = !f->adapters;
        if (f->twin)
            snprintf(f->golden, sizeof f->golden, "%s/%s/golden.npy", data_dir, base);
        else
            snprintf(f->dir, sizeof f->dir, "%s/%s", data_dir, base); /* whose config.json it is */
    }
    const char *format = fa_jstr(fa_jget(f->root, "format"), NULL);
    f->gguf = format && !strcmp(format, "gguf");
    return 0;
}

void fx_close(fx *f) {
    fa_json_free(f->doc);
    fa_json_free(f->base_doc);
    memset(f, 0, sizeof *f);
}

int fx_write(const fx *f, const char *out_dir, char model[512], fa_error *err) {
    snprintf(model, 512, "%s", out_dir);
    if (f->adapters) {
        int rc = write_adapters(f, out_dir, err);
        if (rc) return rc;
    }
    if (f->gguf) return write_gguf(f, out_dir, model, err);
    char path[640];
    fa_buf b = {0};
    size_t len;
    char *text;
    snprintf(path, sizeof path, "%s/config.json", f->dir);
    int rc = fa_read_file(&text, &len, path, 1 << 20, err);
    if (rc) return rc;
    fa_buf_add(&b, text, len);
    fa_free(text);
    rc = put_file(out_dir, "config.json", &b, err);
    fa_buf_free(&b);
    return rc ? rc : write_folder(f, out_dir, err);
}
