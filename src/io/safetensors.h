/* One safetensors file: {u64 header bytes, JSON header, data}. Checked as strictly as the format's reference reader,
 * plus a limit of eight dimensions, before anything but the header is looked at: the tensors tile the data area
 * exactly, without holes and overlaps. Sharded checkpoints are put together in io/ckpt_dir.c. */
#ifndef FA_IO_SAFETENSORS_H
#define FA_IO_SAFETENSORS_H

#include "base/map.h"
#include "io/json.h"

typedef struct fa_st fa_st;

typedef struct fa_st_tensor {
    const char *name;      /* NUL-terminated, holds no NUL */
    const char *type_name; /* "BF16", ...: static */
    const uint8_t *data;   /* any alignment */
    size_t bytes;
    int64_t dim[8]; /* outermost first; [] has n_dim 0 and one value */
    uint8_t n_dim;
    int8_t dtype; /* fa_dtype, or -1: a type of the format that fa_dtype lacks (F4, F6, C64, FNUZ) */
    bool copied;  /* data are no part of the file's mapping but memory of the handle (io/torch.h alone) */
} fa_st_tensor;

enum { FA_ST_MAX_DIM = 8, FA_ST_MAX_HEADER = 100 * 1000 * 1000 };

int fa_st_open(fa_st **out, const char *path, fa_error *err);
/* The same on bytes in memory that outlive the handle (tests, fuzzing). */
int fa_st_parse(fa_st **out, const uint8_t *data, size_t size, const char *what, fa_error *err);
void fa_st_free(fa_st *s);
size_t fa_st_count(const fa_st *s);
const fa_st_tensor *fa_st_at(const fa_st *s, size_t i); /* in the order of the header */
const fa_st_tensor *fa_st_find(const fa_st *s, const char *name);
const fa_jnode *fa_st_metadata(const fa_st *s); /* __metadata__ (an object of strings) or NULL */
const fa_map *fa_st_map(const fa_st *s);        /* the file; empty for fa_st_parse */
const char *fa_st_what(const fa_st *s);         /* the path, for messages */

#endif
