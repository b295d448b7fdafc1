/* Tiny checkpoints of the parity tests, made from tests/data/families without Python: the same bytes as
 * tools/fixtures/make_tiny.py writes.
 *
 * A fixture is a folder with fixture.json (seed, tensor list, token ids, checksums), golden.npy and, except for GGUF,
 * config.json. A fixture whose fixture.json holds only "weights": NAME is a twin: the weights, ids and goldens of NAME
 * under another config.json; one that holds "weights": NAME and "adapters" is that checkpoint with adapters, which are
 * written to adapter0, adapter1, ... beside it, and has goldens of its own. */
#ifndef TESTS_FAMILIES_GEN_H
#define TESTS_FAMILIES_GEN_H

#include "base/buf.h"
#include "io/json.h"

typedef struct fx {
    fa_json *doc, *base_doc;
    const fa_jnode *root;     /* what owns the weights: fixture.json of the fixture, or of the one that a twin names */
    char dir[512];            /* folder of this fixture */
    char golden[512];         /* path of the golden logits */
    const fa_jnode *adapters; /* NULL: none */
    bool gguf, twin;
} fx;

int fx_open(fx *f, const char *data_dir, const char *name, fa_error *err);
void fx_close(fx *f);
/* Writes the checkpoint into an existing folder and compares the weight files with the checksums. `model` gets the path
 * to give to -m. */
int fx_write(const fx *f, const char *out_dir, char model[512], fa_error *err);

/* Appends the bytes of one tensor entry under its expanded name. */
int fx_tensor(fa_buf *b, const fa_jnode *t, const char *name, uint64_t seed, fa_error *err);

/* Expanded tensor list: an entry with "n" stands for n tensors, "{}" in its name is the number. */
typedef struct fx_item {
    const fa_jnode *t;
    char name[96];
} fx_item;
fx_item *fx_expand(const fa_jnode *tensors, size_t *n); /* free with fa_free */

#endif
