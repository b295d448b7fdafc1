/* Writing safetensors files whose arrays come piece by piece, in any order and from several threads: shapes are known
 * first, so every byte has its place from the beginning. */
#ifndef FA_IO_ST_STREAM_H
#define FA_IO_ST_STREAM_H

#include "base/err.h"
#include "tensor/dtype.h"

typedef struct fa_st_out {
    const char *name; /* outlives the writer */
    int64_t dim[8];
    int n_dim;
    fa_dtype dtype;
    uint64_t at;  /* set by fa_st_stream_open: where its bytes begin in the file */
    size_t bytes; /* likewise */
} fa_st_out;

typedef struct fa_st_stream fa_st_stream;

/* Creates path, which must not exist, with its header and its final size. item [n]: `at` and `bytes` are filled. */
int fa_st_stream_open(fa_st_stream **out, const char *path, fa_st_out *item, size_t n, fa_error *err);
/* bytes of an array from `from` on. Threads may write at the same time; the first failure is reported by close. */
void fa_st_stream_put(fa_st_stream *s, const fa_st_out *item, size_t from, const void *data, size_t bytes);
bool fa_st_stream_failed(const fa_st_stream *s);
/* What was written so far goes towards the disk. */
void fa_st_stream_flush(fa_st_stream *s);
/* Makes the file durable and closes it; frees s. keep false: it is only closed. */
int fa_st_stream_close(fa_st_stream *s, bool keep, fa_error *err);
size_t fa_st_out_bytes(const fa_st_out *item);

#endif
