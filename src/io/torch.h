/* One file of torch.save with a dict of tensors (pytorch_model.bin): a zip archive of a pickle, data.pkl, and one
 * stored member for each storage. The pickle is read as data (io/pickle.h): no code runs, and whatever is not a dict of
 * tensors is refused. Tensors stay where they lie in the file, but those whose strides are not those of rows one after
 * the other (a saved transpose) are copied. Sharded checkpoints are put together in io/ckpt_dir.c. */
#ifndef FA_IO_TORCH_H
#define FA_IO_TORCH_H

#include "io/safetensors.h"

typedef struct fa_pt fa_pt;

int fa_pt_open(fa_pt **out, const char *path, fa_error *err);
/* The same on bytes in memory that outlive the handle (tests, fuzzing). */
int fa_pt_parse(fa_pt **out, const uint8_t *data, size_t size, const char *what, fa_error *err);
void fa_pt_free(fa_pt *p);
size_t fa_pt_count(const fa_pt *p);
const fa_st_tensor *fa_pt_at(const fa_pt *p, size_t i); /* in the order of the dict; several may share bytes */
const fa_st_tensor *fa_pt_find(const fa_pt *p, const char *name);
const fa_map *fa_pt_map(const fa_pt *p);
const char *fa_pt_what(const fa_pt *p); /* the path, for messages */

#endif
