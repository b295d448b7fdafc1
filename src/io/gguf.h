/* GGUF v2/v3 files (ggml's container): metadata and the tensor directory. Little-endian. The whole header is checked
 * before anything is allocated in proportion to what it claims. */
#ifndef FA_IO_GGUF_H
#define FA_IO_GGUF_H

#include "base/map.h"

typedef struct fa_gguf fa_gguf;

typedef enum fa_gguf_type { /* values as in the file */
                            FA_GGUF_U8,
                            FA_GGUF_I8,
                            FA_GGUF_U16,
                            FA_GGUF_I16,
                            FA_GGUF_U32,
                            FA_GGUF_I32,
                            FA_GGUF_F32,
                            FA_GGUF_BOOL,
                            FA_GGUF_STR,
                            FA_GGUF_ARR,
                            FA_GGUF_U64,
                            FA_GGUF_I64,
                            FA_GGUF_F64
} fa_gguf_type;

/* A metadata value. Scalars are in i / f; strings and arrays point into the mapped file. */
typedef struct fa_gguf_value {
    const char *key;         /* NUL-terminated, owned by the fa_gguf */
    fa_gguf_type type, elem; /* elem: element type of an array */
    int64_t i;               /* integers and bools (u64 above INT64_MAX: refused at open); arrays: bytes at data */
    double f;                /* every numeric scalar */
    const uint8_t *data;     /* string bytes, or the first array element as stored */
    uint64_t n;              /* string bytes or array elements */
} fa_gguf_value;

typedef struct fa_gguf_tensor {
    const char *name; /* GGUF name */
    uint32_t type;    /* ggml type number */
    uint8_t n_dim;
    int64_t dim[4]; /* outermost first (the file stores the reverse) */
    const uint8_t *data;
    size_t bytes;
} fa_gguf_tensor;

int fa_gguf_open(fa_gguf **out, const char *path, fa_error *err);
/* The same on bytes in memory that outlive the handle (tests, fuzzing). */
int fa_gguf_parse(fa_gguf **out, const uint8_t *data, size_t size, const char *what, fa_error *err);
void fa_gguf_free(fa_gguf *g);

const fa_map *fa_gguf_map(const fa_gguf *g); /* the file; empty for fa_gguf_parse */
size_t fa_gguf_n_tensor(const fa_gguf *g);
const fa_gguf_tensor *fa_gguf_tensor_at(const fa_gguf *g, size_t i);
size_t fa_gguf_n_kv(const fa_gguf *g);
const fa_gguf_value *fa_gguf_kv_at(const fa_gguf *g, size_t i);
const fa_gguf_value *fa_gguf_find(const fa_gguf *g, const char *key); /* NULL when absent */
/* Next string of a string array: *pos starts at 0 and is an offset into v->data. False at the end. Strings were checked
 * at open. */
bool fa_gguf_next_str(const fa_gguf_value *v, size_t *pos, const char **s, size_t *len);
/* Element i of a numeric array as a double. */
double fa_gguf_num_at(const fa_gguf_value *v, uint64_t i);

/* Name of a ggml type ("Q4_K"), NULL when unknown; values and bytes per block. */
const char *fa_ggml_type_name(uint32_t type);
bool fa_ggml_type_block(uint32_t type, int *values, int *bytes);

#endif
