/* Where a model's weights lie. In host memory they are bound when the model is opened: matrices stay in the file
 * mapping. A GPU gets a copy of all of them in one block, made when the first engine there is created and shared by the
 * engines of that GPU until the model goes. Random weights are only shapes until someone needs them: the CPU, a file,
 * or a GPU, which makes its own.
 *
 * A device's weights are bound twice: a dry run counts, then the block is had and the places in it are known. */
#define _DEFAULT_SOURCE
#include "backend/registry.h"
#include "base/alloc.h"
#include "base/cpus.h"
#include "engine/model.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Kernels read rows in 16-byte pieces, and a little ahead. */
enum { BLOCK_SLACK = 4096 };

static int bind(ffai_model *m, fa_placer *p, fa_weights *out, fa_error *err) {
    fa_binder b;
    if (!(out->w = fa_mem_calloc(&out->mem, 1, m->family->weights_size)))
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory for weights", fa_ckpt_path(m->ckpt));
    int rc = fa_binder_open(&b, m->ckpt, m->family->renames, &out->mem, err);
    b.placer = p;
    b.synth = m->synthetic ? &m->synth : NULL;
    if (!rc) m->family->bind(&b, m->cfg, out->w);
    if (!rc) rc = fa_binder_finish(&b, err);
    out->item = b.item;
    out->n_item = b.n_item;
    fa_binder_close(&b);
    return rc;
}

int fa_model_shapes(ffai_model *m, size_t row_align, fa_weights *out, fa_error *err) {
    fa_placer p;
    memset(out, 0, sizeof *out);
    int rc = fa_placer_open(&p, m->ckpt, err);
    p.base = p.vectors =
        (uint8_t *)(uintptr_t)FA_ARENA_ALIGN; /* anything but NULL, which means that there is no such weight */
    p.dry = true;
    p.row_align = row_align;
    if (!rc) rc = bind(m, &p, out, err);
    out->matrix_bytes = (p.bytes + FA_ARENA_ALIGN - 1) / FA_ARENA_ALIGN * FA_ARENA_ALIGN;
    out->bytes = out->matrix_bytes + p.vector_bytes;
    fa_placer_close(&p);
    return rc;
}

void fa_model_weights_free(fa_weights *w) {
    if (w->dev) {
        w->dev->release(w->dev, w->block);
        w->dev->free(w->dev);
    }
    fa_mem_free(&w->mem);
    memset(w, 0, sizeof *w);
}

/* ---- in host memory ---- */

static int make_host(ffai_model *m, fa_error *err) {
    if (m->host) return 0;
    fa_weights *w = FA_NEW(fa_weights);
    bool spread = fa_spread_begin();
    int rc = w ? bind(m, NULL, w, err) : fa_fail(err, FFAI_ENOMEM, "%s: no memory for weights", fa_ckpt_path(m->ckpt));
    fa_spread_end(spread);
    if (!rc) {
        m->host = w;
        return 0;
    }
    if (w) fa_model_weights_free(w);
    fa_free(w);
    return rc;
}

int fa_model_host(ffai_model *m, const void **w, fa_error *err) {
    *w = m->w;
    if (!m->synthetic) return 0;
    pthread_mutex_lock(&m->weight_lock);
    int rc = make_host(m, err);
    if (!rc) *w = m->host->w;
    pthread_mutex_unlock(&m->weight_lock);
    return rc;
}

int fa_model_items(ffai_model *m, const fa_st_item **item, size_t *n, fa_error *err) {
    const void *w;
    int rc = fa_model_host(m, &w, err);
    if (rc) return rc;
    *item = m->host->item;
    *n = m->host->n_item;
    return 0;
}

/* ---- on a device ---- */

static fa_weights *find(const ffai_model *m, const fa_module *mod, int index) {
    for (fa_weights *w = m->on_device; w; w = w->next)
        if (w->mod == mod && w->index == index) return w;
    return NULL;
}

bool fa_model_is_on(ffai_model *m, const fa_module *mod, int index) {
    pthread_mutex_lock(&m->weight_lock);
    bool is = find(m, mod, index) != NULL;
    pthread_mutex_unlock(&m->weight_lock);
    return is;
}

/* What was read lies on the device now: the mapping's pages need not stay in memory. They come back from the file
 * should someone read them. */
static void drop_pages(const ffai_model *m) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < fa_ckpt_count(m->ckpt); i++) {
        const fa_ckpt_tensor *t = fa_ckpt_at(m->ckpt, i);
        uintptr_t lo = ((uintptr_t)t->data + page - 1) / page * page,
                  hi = ((uintptr_t)t->data + t->bytes) / page * page;
        if (m->used[i] && !t->copied && hi > lo) madvise((void *)lo, hi - lo, MADV_DONTNEED);
    }
}

/* Through a device object of its own, whose buffers and streams go when all is there. */
static int upload(const fa_module *mod, int index, const fa_placer *p, fa_error *err) {
    fa_device *d;
    int rc = p->n_copy ? mod->open(&d, index, err) : 0;
    if (rc || !p->n_copy) return rc;
    rc = d->upload(d, p->copy, p->n_copy, err);
    d->free(d);
    return rc;
}

/* Takes the block, binds to it and fills it. */
static int load(ffai_model *m, fa_weights *w, fa_error *err) {
    fa_placer p;
    fa_weights shapes;
    int rc = fa_model_shapes(m, FA_DEVICE_PITCH, &shapes, err);
    size_t matrices = shapes.matrix_bytes, bytes = shapes.bytes + BLOCK_SLACK;
    fa_model_weights_free(&shapes);
    if (rc) return rc;
    if (!(w->block = w->dev->alloc(w->dev, bytes, "the weights", err))) return FFAI_ENOMEM;
    rc = w->dev->fill(w->dev, w->block, 0, bytes, err); /* what pads rows is read */
    if (rc) return rc;
    rc = fa_placer_open(&p, m->ckpt, err);
    p.base = (uint8_t *)w->block;
    p.vectors = p.base + matrices;
    p.row_align = FA_DEVICE_PITCH;
    if (!rc) rc = bind(m, &p, w, err);
    if (!rc && (p.bytes > matrices || matrices + p.vector_bytes + BLOCK_SLACK > bytes))
        rc = fa_fail(err, FFAI_EINTERNAL, "%s: weights were counted as %zu + %zu bytes and bound as %zu + %zu",
                     fa_ckpt_path(m->ckpt), matrices, bytes - BLOCK_SLACK - matrices, p.bytes, p.vector_bytes);
    if (!rc) rc = upload(w->mod, w->index, &p, err);
    for (size_t i = 0; !rc && i < p.n_job; i++) rc = w->dev->synth(w->dev, &p.job[i].w, p.job[i].seed, err);
    /* engines have device objects of their own, which do not wait for this one: a fill does */
    if (!rc) rc = w->dev->fill(w->dev, (uint8_t *)w->block + bytes - 1, 0, 1, err);
    if (!rc) rc = fa_ckpt_check(m->ckpt, err);
    w->bytes = bytes;
    fa_placer_close(&p);
    if (!rc) drop_pages(m);
    return rc;
}

int fa_model_device(ffai_model *m, const fa_module *mod, int index, const fa_weights **out, fa_error *err) {
    int rc = 0;
    pthread_mutex_lock(&m->weight_lock);
    fa_weights *w = find(m, mod, index);
    if (!w) {
        if (!(w = FA_NEW(fa_weights)))
            rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for weights", fa_ckpt_path(m->ckpt));
        if (!rc) rc = mod->open(&w->dev, index, err);
        if (!rc) {
            w->mod = mod;
            w->index = index;
            rc = load(m, w, err);
        }
        if (!rc) {
            w->next = m->on_device;
            m->on_device = w;
        } else if (w) {
            fa_model_weights_free(w);
            fa_free(w);
        }
    }
    *out = rc ? NULL : w;
    pthread_mutex_unlock(&m->weight_lock);
    return rc;
}

void fa_model_weights_free_all(ffai_model *m) {
    for (fa_weights *w = m->on_device, *next; w; w = next) {
        next = w->next;
        fa_model_weights_free(w);
        fa_free(w);
    }
    if (m->host) fa_model_weights_free(m->host);
    fa_free(m->host);
    m->on_device = m->host = NULL;
}
