/* safetensors out: header JSON, padding, then the arrays in order. */
#include "io/st_write.h"
#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static size_t item_bytes(const fa_st_item *t) {
    size_t n = fa_dtype_size(t->dtype);
    for (int i = 0; i < t->n_dim; i++) n *= (size_t)t->dim[i];
    return n;
}

/* Names come from binders: they hold nothing that JSON would have to escape. */
static void add_header(fa_buf *h, const fa_st_item *item, size_t n) {
    uint64_t at = 0;
    fa_buf_puts(h, "{\"__metadata__\":{\"format\":\"mlx\"}");
    for (size_t i = 0; i < n; i++) {
        const fa_st_item *t = &item[i];
        fa_buf_printf(h, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld", t->name, fa_dtype_name(t->dtype),
                      (long long)t->dim[0]);
        for (int d = 1; d < t->n_dim; d++) fa_buf_printf(h, ",%lld", (long long)t->dim[d]);
        fa_buf_printf(h, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                      (unsigned long long)(at + item_bytes(t)));
        at += item_bytes(t);
    }
    fa_buf_puts(h, "}");
    while (!h->failed && (8 + h->len) % 64) fa_buf_puts(h, " ");
}

int fa_st_write(const char *path, const fa_st_item *item, size_t n, fa_error *err) {
    fa_buf h = {0};
    add_header(&h, item, n);
    if (h.failed) {
        fa_buf_free(&h);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the header", path);
    }
    FILE *f = fopen(path, "wb");
    bool ok = f != NULL;
    uint8_t len[8];
    for (int i = 0; i < 8; i++) len[i] = (uint8_t)((uint64_t)h.len >> 8 * i);
    ok = ok && fwrite(len, 8, 1, f) == 1 && fwrite(h.data, h.len, 1, f) == 1;
    for (size_t i = 0; ok && i < n; i++)
        ok = item_bytes(&item[i]) == 0 || fwrite(item[i].data, item_bytes(&item[i]), 1, f) == 1;
    if (f && fclose(f) != 0) ok = false;
    fa_buf_free(&h);
    return ok ? 0 : fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(errno));
}
