/* Adapters of an engine: their memory, and the table of what all of them change, which recording looks things up in.
 * What a file's modules are of the model is found by adapter_match.c.
 *
 * Weights are shared by engines and stay as they are. A loaded adapter is copied: into one block of a device's memory,
 * rows at multiples of FA_DEVICE_PITCH, or into host memory. Loading and dropping wait for the device, make the table
 * anew and forget the recorded programs. Which sequence uses what is told by fa_batch.adapt, so programs outlive
 * changes of that. */
#include "engine/adapter.h"
#include "base/alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- on a device ---- */

static size_t aligned(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Hands out a place and lists the copy; base NULL: only counts. */
static void *place(uint8_t *base, size_t *used, fa_copy *copy, size_t *n_copy, const void *host, size_t rows,
                   size_t row_bytes, size_t pitch) {
    uint8_t *to = base + *used;
    *used = aligned(*used + rows * pitch, FA_ARENA_ALIGN);
    if (base) copy[(*n_copy)++] = (fa_copy){to, host, rows, row_bytes, pitch};
    return base ? to : NULL;
}

static void place_matrix(uint8_t *base, size_t *used, fa_copy *copy, size_t *n_copy, fa_weight *w) {
    size_t pitch = aligned(w->row_bytes, FA_DEVICE_PITCH);
    void *to = place(base, used, copy, n_copy, w->codes, (size_t)w->rows, w->row_bytes, pitch);
    if (!base) return;
    w->codes = (const uint8_t *)to;
    w->row_bytes = pitch;
}

/* Of n values of 4 bytes; NULL stays NULL. */
static const void *place_values(uint8_t *base, size_t *used, fa_copy *copy, size_t *n_copy, const void *p, size_t n) {
    const void *to = p ? place(base, used, copy, n_copy, p, 1, 4 * n, 4 * n) : NULL;
    return base ? to : p;
}

/* Places for all; with base their copies too, and addresses change to those of the device. */
static size_t place_all(ffai_adapter *a, uint8_t *base, fa_copy *copy, size_t *n_copy) {
    size_t used = 0;
    const uint8_t *last = NULL; /* the host address of the a before, which parts of a fused module share */
    const fa_weight *last_w = NULL;
    for (size_t i = 0; i < a->n; i++) {
        fa_lora *l = &a->change[i].lora;
        if (l->a.codes == last) {
            if (base) l->a = *last_w;
        } else {
            last = l->a.codes;
            place_matrix(base, &used, copy, n_copy, &l->a);
            last_w = &l->a;
        }
        place_matrix(base, &used, copy, n_copy, &l->b);
        l->bias = (const float *)place_values(base, &used, copy, n_copy, l->bias, (size_t)l->b.rows);
        l->mag = (const float *)place_values(base, &used, copy, n_copy, l->mag, 4 * (size_t)l->n_mag);
        l->expert = (const int32_t *)place_values(base, &used, copy, n_copy, l->expert, a->change[i].n_expert);
    }
    return used;
}

static int to_device(ffai_adapter *a, fa_error *err) {
    fa_device *d = a->e->dev;
    size_t n_copy = 0;
    a->bytes = place_all(a, NULL, NULL, &n_copy);
    if (!d) return 0;
    fa_copy *copy = FA_NEWN(fa_copy, 5 * a->n);
    int rc = copy ? 0 : fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu copies", a->path, 5 * a->n);
    /* kernels may read a little ahead */
    if (!rc && !(a->block = d->alloc(d, a->bytes + FA_ARENA_ALIGN, "an adapter", err))) rc = FFAI_ENOMEM;
    if (!rc) {
        place_all(a, (uint8_t *)a->block, copy, &n_copy);
        rc = d->upload(d, copy, n_copy, err);
    }
    fa_free(copy);
    if (!rc) fa_mem_free(&a->mem); /* it is there now */
    return rc;
}

/* ---- the table ---- */

static void table_free(const ffai_engine *e, fa_adapted *t, fa_mem *mem, void *dev_mem) {
    if (dev_mem) e->dev->release(e->dev, dev_mem);
    fa_mem_free(mem);
    memset(t, 0, sizeof *t);
}

/* The one that was loaded next after `before`; NULL: none. */
static const ffai_adapter *loaded_after(const ffai_engine *e, uint64_t before) {
    const ffai_adapter *next = NULL;
    for (int k = 0; k < FA_ADAPTERS; k++) {
        const ffai_adapter *a = e->adapters.at[k];
        if (a && a->serial > before && (!next || a->serial < next->serial)) next = a;
    }
    return next;
}

/* Counts what is changed on each matrix, or with `item` puts it there: in the order in which adapters were loaded, on
 * which magnitudes depend. */
static void gather(const ffai_engine *e, fa_loras *linear, fa_loras *embed, fa_lora *item) {
    for (const ffai_adapter *a = loaded_after(e, 0); a; a = loaded_after(e, a->serial)) {
        for (size_t i = 0; i < a->n; i++) {
            const fa_change *c = &a->change[i];
            fa_loras *l = c->table ? &embed[c->id] : &linear[c->id];
            int64_t rank = c->lora.b.cols;
            l->dora = l->dora || c->lora.mag;
            if (item) {
                fa_lora *to = item + (l->item - item) + l->n;
                *to = c->lora;
                to->u_from = l->rank;
            }
            l->n++;
            l->rank += rank;
            if (rank > l->max_rank) l->max_rank = rank;
        }
    }
}

/* Turns counts into places for that many: *at goes on. */
static void give_places(fa_loras *l, uint32_t n, const fa_lora *item, const fa_lora *dev, size_t *at) {
    for (uint32_t i = 0; i < n; i++) {
        size_t count = (size_t)l[i].n;
        l[i] = (fa_loras){.dora = l[i].dora, .item = item + *at, .dev_item = dev ? dev + *at : NULL};
        *at += count;
    }
}

/* The table of all that is loaded; the one before goes. Waits for what runs and drops programs, which point to it. */
static int make_table(ffai_engine *e, fa_error *err) {
    fa_adapters *s = &e->adapters;
    fa_mem mem = {0};
    uint32_t n = (uint32_t)e->m->targets.n + 1;
    size_t total = 0, at = 0;
    void *dev_mem = NULL;
    int rc = fa_engine_wait(e, err);
    for (int k = 0; k < FA_ADAPTERS; k++) total += s->at[k] ? s->at[k]->n : 0;
    fa_loras *linear = (fa_loras *)fa_mem_calloc(&mem, n, sizeof *linear);
    fa_loras *embed = (fa_loras *)fa_mem_calloc(&mem, n, sizeof *embed);
    fa_lora *item = (fa_lora *)fa_mem_calloc(&mem, total + 1, sizeof *item);
    if (!rc && (!linear || !embed || !item)) rc = fa_fail(err, FFAI_ENOMEM, "no memory for %zu changes", total);
    if (!rc && e->dev && total && !(dev_mem = e->dev->alloc(e->dev, total * sizeof *item, "adapters", err)))
        rc = FFAI_ENOMEM;
    if (!rc) {
        gather(e, linear, embed, NULL);
        give_places(linear, n, item, (const fa_lora *)dev_mem, &at);
        give_places(embed, n, item, (const fa_lora *)dev_mem, &at);
        gather(e, linear, embed, item);
        if (dev_mem) rc = e->dev->write(e->dev, dev_mem, item, total * sizeof *item, err);
    }
    if (rc) {
        table_free(e, &(fa_adapted){0}, &mem, dev_mem);
        return rc;
    }
    fa_engine_drop_programs(e);
    table_free(e, &s->table, &s->mem, s->dev_mem);
    s->table = (fa_adapted){linear, embed, n};
    s->mem = mem;
    s->dev_mem = dev_mem;
    s->n = 0;
    for (int k = 0; k < FA_ADAPTERS; k++)
        if (s->at[k]) s->n = k + 1;
    return 0;
}

/* ---- loading and dropping ---- */

static void adapter_free(ffai_adapter *a) {
    if (!a) return;
    if (a->block) a->e->dev->release(a->e->dev, a->block);
    fa_mem_free(&a->mem);
    fa_free(a->change);
    fa_free(a->path);
    fa_free(a);
}

static int load(ffai_adapter *a, const char *path, fa_error *err) {
    fa_adapter_file file;
    if (!(a->path = fa_strdup(path))) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for an adapter", path);
    int rc = fa_adapter_file_open(&file, path, err);
    if (rc) return rc;
    a->mlx = file.mlx;
    rc = fa_adapter_match(a, &file, err);
    if (!rc) a->hash = fa_adapter_file_hash(&file);
    if (!rc) rc = to_device(a, err);
    fa_adapter_file_close(&file);
    for (size_t i = 0; i < a->n; i++) a->change[i].lora.a.name = a->change[i].lora.b.name = NULL; /* of the file */
    return rc;
}

int ffai_adapter_load(ffai_adapter **out, ffai_engine *e, const char *path, ffai_error *err) {
    int index = 0;
    *out = NULL;
    if (!path) return fa_fail(err, FFAI_EINVAL, "ffai_adapter_load: path is NULL");
    if (e->in_events) return fa_fail(err, FFAI_EINVAL, "ffai_adapter_load inside an event of a step");
    while (index < FA_ADAPTERS && e->adapters.at[index]) index++;
    if (index == FA_ADAPTERS) return fa_fail(err, FFAI_ELIMIT, "%s: %d adapters are loaded already", path, FA_ADAPTERS);
    ffai_adapter *a = FA_NEW(ffai_adapter);
    if (!a) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for an adapter", path);
    a->e = e;
    a->index = index;
    a->serial = ++e->adapters.n_loaded;
    int rc = load(a, path, err);
    if (!rc) {
        e->adapters.at[index] = a;
        rc = make_table(e, err);
        if (rc) e->adapters.at[index] = NULL;
    }
    if (rc)
        adapter_free(a);
    else
        *out = a;
    return rc;
}

int ffai_adapter_drop(ffai_adapter *a, ffai_error *err) {
    if (!a) return 0;
    ffai_engine *e = a->e;
    int k = a->index, n = fa_requests_using(e, k);
    if (e->in_events) return fa_fail(err, FFAI_EINVAL, "ffai_adapter_drop inside an event of a step");
    if (n) return fa_fail(err, FFAI_EINVAL, "%s: %d unfinished request%s it", a->path, n, n > 1 ? "s use" : " uses");
    e->adapters.at[k] = NULL;
    int rc = make_table(e, err);
    if (rc) {
        e->adapters.at[k] = a;
        return rc;
    }
    e->adapters.use[k] = 0;
    for (int s = 0; s < e->n_slot; s++) {
        float *use = &e->slot_use[(int64_t)s * FA_ADAPTERS + k];
        if (*use != 0) fa_kv_reset(e->kv, s); /* the next adapter of this number is another one */
        *use = 0;
    }
    fa_requests_forget(e, k);
    adapter_free(a);
    return 0;
}

void fa_adapters_free(ffai_engine *e) {
    for (int k = 0; k < FA_ADAPTERS; k++) adapter_free(e->adapters.at[k]);
    table_free(e, &e->adapters.table, &e->adapters.mem, e->adapters.dev_mem);
    memset(&e->adapters, 0, sizeof e->adapters);
}

void ffai_adapter_get_info(const ffai_adapter *a, ffai_adapter_info *info) {
    *info = (ffai_adapter_info){.path = a->path,
                                .kind = a->mlx ? "mlx" : "peft",
                                .n_matrix = (int64_t)a->n,
                                .rank = a->rank,
                                .bytes = (int64_t)a->bytes};
}

/* ---- using ---- */

int fa_adapters_scales(const ffai_engine *e, const ffai_adapter_use *use, size_t n, float *scales, fa_error *err) {
    float s[FA_ADAPTERS] = {0};
    for (size_t i = 0; i < n; i++) {
        const ffai_adapter *a = use[i].adapter;
        if (!a || a->e != e)
            return fa_fail(err, FFAI_EINVAL, "adapter %zu: %s", i, a ? "it was loaded into another engine" : "NULL");
        s[a->index] += use[i].scale;
        if (!isfinite(s[a->index]))
            return fa_fail(err, FFAI_EINVAL, "%s: the scale %g is no finite number", a->path, (double)s[a->index]);
    }
    memcpy(scales, s, sizeof s);
    return 0;
}

int ffai_engine_use_adapters(ffai_engine *e, const ffai_adapter_use *use, size_t n, ffai_error *err) {
    return fa_adapters_scales(e, use, n, e->adapters.use, err);
}

uint64_t fa_adapter_hash(const ffai_engine *e, int adapter) { return e->adapters.at[adapter]->hash; }

int fa_adapter_find(const ffai_engine *e, uint64_t hash) {
    for (int k = 0; k < FA_ADAPTERS; k++)
        if (e->adapters.at[k] && e->adapters.at[k]->hash == hash) return k;
    return -1;
}
