/* Builds GGUF files for tests, byte by byte, so that every field can lie. */
#ifndef TESTS_IO_GGUF_MAKE_H
#define TESTS_IO_GGUF_MAKE_H

#include "io/util.h"

#include "io/gguf.h"

typedef struct gguf_make {
    fa_buf kv, info, data;
    uint64_t n_kv, n_tensor;
    uint32_t align;
} gguf_make;

static inline void mk_str(fa_buf *b, const char *s) {
    put_le(b, strlen(s), 8);
    fa_buf_puts(b, s);
}

static inline void mk_key(gguf_make *m, const char *key, uint32_t type) {
    mk_str(&m->kv, key);
    put_le(&m->kv, type, 4);
    m->n_kv++;
}

static inline void mk_u32(gguf_make *m, const char *key, uint32_t v) {
    mk_key(m, key, FA_GGUF_U32);
    put_le(&m->kv, v, 4);
}

static inline void mk_u16(gguf_make *m, const char *key, uint32_t v) {
    mk_key(m, key, FA_GGUF_U16);
    put_le(&m->kv, v, 2);
}

static inline void mk_f32(gguf_make *m, const char *key, float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    mk_key(m, key, FA_GGUF_F32);
    put_le(&m->kv, u, 4);
}

static inline void mk_text(gguf_make *m, const char *key, const char *v) {
    mk_key(m, key, FA_GGUF_STR);
    mk_str(&m->kv, v);
}

/* dims innermost first, as in the file; the data are `bytes` bytes of value fill. */
static inline void mk_tensor(gguf_make *m, const char *name, uint32_t type, int n_dim, const uint64_t *dims,
                             size_t bytes, int fill) {
    uint32_t align = m->align ? m->align : 32;
    while (m->data.len % align) put_le(&m->data, 0, 1);
    mk_str(&m->info, name);
    put_le(&m->info, (uint64_t)n_dim, 4);
    for (int i = 0; i < n_dim; i++) put_le(&m->info, dims[i], 8);
    put_le(&m->info, type, 4);
    put_le(&m->info, m->data.len, 8);
    for (size_t i = 0; i < bytes; i++) put_le(&m->data, (uint64_t)fill, 1);
    m->n_tensor++;
}

static inline void mk_f32_tensor(gguf_make *m, const char *name, uint64_t inner, uint64_t outer) {
    uint64_t d[2] = {inner, outer};
    mk_tensor(m, name, 0, outer ? 2 : 1, d, (size_t)(4 * inner * (outer ? outer : 1)), 0);
}

/* The finished file; m is emptied. */
static inline fa_buf mk_file(gguf_make *m, uint32_t version) {
    fa_buf b = {0};
    uint32_t align = m->align ? m->align : 32;
    fa_buf_puts(&b, "GGUF");
    put_le(&b, version, 4);
    put_le(&b, m->n_tensor, 8);
    put_le(&b, m->n_kv, 8);
    if (m->kv.len) fa_buf_add(&b, m->kv.data, m->kv.len);
    if (m->info.len) fa_buf_add(&b, m->info.data, m->info.len);
    while (b.len % align) put_le(&b, 0, 1);
    if (m->data.len) fa_buf_add(&b, m->data.data, m->data.len);
    fa_buf_free(&m->kv);
    fa_buf_free(&m->info);
    fa_buf_free(&m->data);
    memset(m, 0, sizeof *m);
    return b;
}

#endif
