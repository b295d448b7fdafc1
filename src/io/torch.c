/* The reader of torch files. What the pickle holds is given by torch's serialization.py (persistent ids) and _utils.py
 * (_rebuild_*):
 *
 *   {name: call(_rebuild_tensor_v2, (stored, offset, (sizes), (strides), requires_grad, hooks[, metadata]))}
 *   _rebuild_tensor_v3 has the dtype before metadata, _rebuild_parameter is (tensor, requires_grad, hooks)
 *   stored: ("storage", class, key, device, elements): the archive's member <root>/data/<key>
 *
 * Files before torch 1.6 are no archives: four pickles one after the other (a magic number, a version, facts of the
 * machine, the dict), a fifth with the list of keys, and then for each key the number of elements and their bytes. */
#include "io/torch.h"
#include "base/alloc.h"
#include "base/map.h"
#include "base/smap.h"
#include "io/pickle.h"
#include "io/zip.h"
#include "tensor/dtype.h"

#include <string.h>

struct fa_pt {
    fa_map map; /* empty for fa_pt_parse */
    char *what, *names;
    fa_st_tensor *tensor;
    size_t n_tensor;
    fa_smap by_name;
};

enum { REBUILD_V2, REBUILD_V3, REBUILD, PARAMETER, N_CALL, UNTYPED = N_CALL };

/* Globals that may occur; behind the functions: classes of storages and dtypes. */
static const struct {
    const char *name;
    int8_t dtype;
} globals[] = {{"torch._utils _rebuild_tensor_v2", -1},
               {"torch._utils _rebuild_tensor_v3", -1},
               {"torch._utils _rebuild_tensor", -1},
               {"torch._utils _rebuild_parameter", -1},
               {"torch.storage UntypedStorage", FA_U8},
               {"torch FloatStorage", FA_F32},
               {"torch HalfStorage", FA_F16},
               {"torch BFloat16Storage", FA_BF16},
               {"torch DoubleStorage", FA_F64},
               {"torch CharStorage", FA_I8},
               {"torch ByteStorage", FA_U8},
               {"torch ShortStorage", FA_I16},
               {"torch IntStorage", FA_I32},
               {"torch LongStorage", FA_I64},
               {"torch BoolStorage", FA_BOOL},
               {"torch float8_e4m3fn", FA_F8_E4M3},
               {"torch float8_e5m2", FA_F8_E5M2},
               {"torch float8_e8m0fnu", FA_F8_E8M0},
               {"torch uint16", FA_U16},
               {"torch uint32", FA_U32},
               {"torch uint64", FA_U64}};

enum { N_GLOBAL = sizeof globals / sizeof globals[0] };

typedef struct blob {
    const uint8_t *data;
    size_t bytes;
} blob;

typedef struct reader {
    fa_pt *p;
    const uint8_t *data;
    size_t size;
    const fa_pickle *pickle;
    const fa_zip *zip;
    const char *root; /* of the archive's names */
    size_t n_root;
    fa_smap keys; /* no archive: of storages, to blob */
    blob *blob;
    size_t copied; /* bytes */
    fa_error *err;
} reader;

/* What a tensor is made of. */
typedef struct view {
    fa_dtype dtype;
    blob from;
    int64_t offset, stride[FA_ST_MAX_DIM];
} view;

static int bad(const reader *r, const char *name, const char *why) {
    return fa_fail(r->err, FFAI_EFORMAT, "%s: tensor %.200s: %s", r->p->what, name, why);
}

static int no_memory(const reader *r) { return fa_fail(r->err, FFAI_ENOMEM, "%s: no memory", r->p->what); }

/* ---- storages ---- */

/* What a storage's id says; its key is not looked up. */
typedef struct storage {
    const char *key;
    size_t n_key;
    int global;
    uint64_t bytes;
} storage;

static bool read_storage(const reader *r, const fa_pval *v, storage *s) {
    const fa_pval *id = v && v->type == FA_P_STORED ? fa_pickle_behind(r->pickle, v) : NULL;
    const fa_pval *kind = fa_pickle_item(r->pickle, id, 0), *type = fa_pickle_item(r->pickle, id, 1),
                  *key = fa_pickle_item(r->pickle, id, 2), *n = fa_pickle_item(r->pickle, id, 4),
                  *part = fa_pickle_item(r->pickle, id, 5);
    if (!n || id->n > 6 || (part && part->type != FA_P_NONE) || !fa_pval_is(kind, "storage") ||
        type->type != FA_P_GLOBAL || type->u.i < UNTYPED || key->type != FA_P_STR || n->type != FA_P_INT || n->u.i < 0)
        return false;
    *s = (storage){key->u.s, key->n, (int)type->u.i, 0};
    return !__builtin_mul_overflow((uint64_t)n->u.i, (uint64_t)fa_dtype_size((fa_dtype)globals[s->global].dtype),
                                   &s->bytes);
}

/* The archive's member <root><folder><name>; NULL: there is none. */
static const fa_zip_member *member(const reader *r, const char *folder, const char *name, size_t n) {
    char path[512] = {0};
    const size_t n_folder = strlen(folder);
    if (n > sizeof path || r->n_root + n_folder + n > sizeof path) return NULL;
    memcpy(path, r->root, r->n_root);
    memcpy(path + r->n_root, folder, n_folder);
    memcpy(path + r->n_root + n_folder, name, n);
    return fa_zip_find(r->zip, path, r->n_root + n_folder + n);
}

static int find_storage(const reader *r, const char *name, const storage *s, blob *b) {
    char shown[104];
    uint32_t i;
    *b = (blob){NULL, 0};
    if (r->zip) {
        const fa_zip_member *m = member(r, "/data/", s->key, s->n_key);
        if (m) *b = (blob){m->data, m->bytes};
    } else if (fa_smap_get(&r->keys, s->key, s->n_key, &i)) {
        *b = r->blob[i];
    }
    if (!b->data)
        return fa_fail(r->err, FFAI_EFORMAT, "%s: tensor %.200s: its storage %s is not in the file", r->p->what, name,
                       fa_zip_shown(shown, s->key, s->n_key));
    if (b->bytes != s->bytes)
        return fa_fail(r->err, FFAI_EFORMAT, "%s: tensor %.200s: its storage has %zu bytes where %llu are announced",
                       r->p->what, name, b->bytes, (unsigned long long)s->bytes);
    return FFAI_OK;
}

/* ---- tensors ---- */

/* Integers >= 0; false: it is no tuple of at most FA_ST_MAX_DIM of them. */
static bool read_ints(const reader *r, const fa_pval *tuple, int64_t *out) {
    if (!tuple || tuple->type != FA_P_TUPLE || tuple->n > FA_ST_MAX_DIM) return false;
    for (uint32_t i = 0; i < tuple->n; i++) {
        const fa_pval *v = fa_pickle_item(r->pickle, tuple, i);
        if (v->type != FA_P_INT || v->u.i < 0) return false;
        out[i] = v->u.i;
    }
    return true;
}

/* Arguments of a _rebuild_tensor: shape into t, the rest into v. */
static int read_args(reader *r, int call, const fa_pval *args, fa_st_tensor *t, view *v) {
    const fa_pval *arg[8] = {0};
    const uint32_t least = call == REBUILD ? 4 : call == REBUILD_V2 ? 6 : 7;
    storage s;
    for (uint32_t i = 0; i < 8; i++) arg[i] = fa_pickle_item(r->pickle, args, i);
    if (args->n < least || args->n > least + (call != REBUILD) || !read_storage(r, arg[0], &s))
        return bad(r, t->name, "it is not made as torch makes tensors");
    if (!read_ints(r, arg[2], t->dim) || !read_ints(r, arg[3], v->stride) || arg[2]->n != arg[3]->n)
        return bad(r, t->name, "shape and strides are not two tuples of at most 8 integers");
    t->n_dim = (uint8_t)arg[2]->n;
    if (arg[1]->type != FA_P_INT || arg[1]->u.i < 0) return bad(r, t->name, "its offset is no integer");
    v->offset = arg[1]->u.i;
    v->dtype = (fa_dtype)globals[s.global].dtype;
    if (call == REBUILD_V3) {
        if (arg[6]->type != FA_P_GLOBAL || arg[6]->u.i < UNTYPED) return bad(r, t->name, "its dtype is no dtype");
        v->dtype = (fa_dtype)globals[arg[6]->u.i].dtype;
    }
    const fa_pval *metadata = call == REBUILD ? NULL : arg[least];
    if (metadata && metadata->type != FA_P_NONE && (metadata->type != FA_P_DICT || metadata->n))
        return bad(r, t->name, "it is a conjugate or negated view");
    return find_storage(r, t->name, &s, &v->from);
}

/* Are the values one after the other? */
static bool dense(const fa_st_tensor *t, const view *v) {
    int64_t step = 1;
    for (int i = t->n_dim - 1; i >= 0; i--) {
        if (t->dim[i] != 1 && v->stride[i] != step) return false;
        step *= t->dim[i];
    }
    return true;
}

/* All values in row order; n of them, at least one. */
static void gather(const fa_st_tensor *t, const view *v, int64_t n, uint8_t *to) {
    int64_t at[FA_ST_MAX_DIM] = {0}, from = v->offset;
    const size_t size = fa_dtype_size(v->dtype);
    for (int64_t i = 0; i < n; i++, to += size) {
        memcpy(to, v->from.data + (size_t)from * size, size);
        for (int d = t->n_dim - 1; d >= 0; d--) {
            from += v->stride[d];
            if (++at[d] < t->dim[d]) break;
            from -= at[d] * v->stride[d];
            at[d] = 0;
        }
    }
}

/* Places t: every value within its storage, copied when they do not follow each other. */
static int place(reader *r, fa_st_tensor *t, const view *v) {
    const size_t size = fa_dtype_size(v->dtype);
    const int64_t room = (int64_t)(v->from.bytes / size);
    int64_t n = 1, last = v->offset, step;
    bool over = false, none = false;
    t->dtype = (int8_t)v->dtype;
    t->type_name = fa_dtype_name(v->dtype);
    t->data = v->from.data;
    for (int i = 0; i < t->n_dim; i++) none |= t->dim[i] == 0;
    for (int i = 0; i < t->n_dim && !none; i++) {
        over |= __builtin_mul_overflow(n, t->dim[i], &n) ||
                __builtin_mul_overflow(t->dim[i] - 1, v->stride[i], &step) || __builtin_add_overflow(last, step, &last);
    }
    if (none) return v->offset > room ? bad(r, t->name, "it begins outside of its storage") : FFAI_OK;
    if (over || last >= room) return bad(r, t->name, "its values reach beyond its storage");
    if (n > room) return bad(r, t->name, "its shape repeats values of its storage");
    t->bytes = (size_t)n * size;
    t->data = v->from.data + (size_t)v->offset * size;
    if (dense(t, v)) return FFAI_OK;
    if (t->bytes > r->size - r->copied) return bad(r, t->name, "more transposed values than the file has bytes");
    uint8_t *to = (uint8_t *)fa_calloc(t->bytes, 1);
    if (!to) return no_memory(r);
    r->copied += t->bytes;
    gather(t, v, n, to);
    t->data = to;
    t->copied = true;
    return FFAI_OK;
}

/* One entry of the dict; numbers, texts and None beside the tensors are passed over. */
static int read_entry(reader *r, const fa_pval *key, const fa_pval *value, char **name) {
    fa_pt *p = r->p;
    char shown[104];
    view v;
    if (key->type != FA_P_STR || !key->n || memchr(key->u.s, 0, key->n))
        return fa_fail(r->err, FFAI_EFORMAT, "%s: a key of its dict is %s and no name", p->what,
                       key->type == FA_P_STR ? "empty, or holds a NUL," : fa_pval_kind(key));
    if (value->type <= FA_P_STR) return FFAI_OK;
    const fa_pval *args = fa_pickle_behind(r->pickle, value), *first = fa_pickle_item(r->pickle, args, 0);
    if (value->type == FA_P_CALL && value->n == PARAMETER && first) {
        value = first;
        args = fa_pickle_behind(r->pickle, value);
    }
    if (value->type != FA_P_CALL || value->n >= PARAMETER)
        return fa_fail(r->err, FFAI_EFORMAT, "%s: \"%s\" is %s, not a tensor", p->what,
                       fa_zip_shown(shown, key->u.s, key->n), fa_pval_kind(value));
    fa_st_tensor *t = &p->tensor[p->n_tensor];
    memcpy(*name, key->u.s, key->n); /* zeros follow */
    t->name = *name;
    int rc = read_args(r, (int)value->n, args, t, &v);
    if (!rc) rc = place(r, t, &v);
    if (rc) return rc;
    *name += key->n + 1;
    p->n_tensor++; /* from here on its copy is freed with p */
    int put = fa_smap_put(&p->by_name, t->name, key->n, (uint32_t)(p->n_tensor - 1));
    if (put == 0) return bad(r, t->name, "it is there twice");
    return put < 0 ? no_memory(r) : FFAI_OK;
}

static int read_dict(reader *r) {
    fa_pt *p = r->p;
    const fa_pval *dict = fa_pickle_root(r->pickle), *key, *value;
    size_t bytes = 1;
    uint32_t it = 0;
    int rc = FFAI_OK;
    if (dict->type != FA_P_DICT)
        return fa_fail(r->err, FFAI_EFORMAT, "%s: it holds %s, not a dict of tensors", p->what, fa_pval_kind(dict));
    while (fa_pickle_next(r->pickle, dict, &it, &key, &value)) /* a key may be said often: its bytes, once each time */
        if (key->type == FA_P_STR && __builtin_add_overflow(bytes, (size_t)key->n + 1, &bytes)) return no_memory(r);
    if (bytes > FA_ST_MAX_HEADER)
        return fa_fail(r->err, FFAI_ELIMIT, "%s: names of %zu bytes, the limit is %d", p->what, bytes,
                       FA_ST_MAX_HEADER);
    p->names = (char *)fa_calloc(bytes, 1);
    p->tensor = FA_NEWN(fa_st_tensor, (size_t)dict->n + 1);
    if (!p->names || !p->tensor || !fa_smap_reserve(&p->by_name, dict->n)) return no_memory(r);
    char *name = p->names;
    it = 0;
    while (!rc && fa_pickle_next(r->pickle, dict, &it, &key, &value)) rc = read_entry(r, key, value, &name);
    return rc;
}

/* ---- the archive ---- */

static int parse_pickle(reader *r, fa_pickle **out, const uint8_t *data, size_t size, size_t *used) {
    const char *names[N_GLOBAL + 1] = {NULL};
    for (int i = 0; i < N_GLOBAL; i++) names[i] = globals[i].name;
    return fa_pickle_parse(out, data, size, names, used, r->p->what, r->err);
}

static int read_archive(reader *r) {
    fa_pickle *pickle = NULL;
    const char *what = r->p->what;
    const fa_zip_member *first = fa_zip_at(r->zip, 0);
    const char *slash = first ? (const char *)memchr(first->name, '/', first->name_len) : NULL;
    if (!slash) return fa_fail(r->err, FFAI_EFORMAT, "%s: a zip archive, but not of torch (no folder in it)", what);
    r->root = first->name;
    r->n_root = (size_t)(slash - first->name);
    const fa_zip_member *data = member(r, "/data.pkl", "", 0), *order = member(r, "/byteorder", "", 0);
    if (!data) return fa_fail(r->err, FFAI_EFORMAT, "%s: a zip archive, but not of torch (no data.pkl)", what);
    if (member(r, "/constants.pkl", "", 0))
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: TorchScript, a program; only dicts of tensors are read", what);
    if (order && (order->bytes != 6 || memcmp(order->data, "little", 6) != 0))
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: its byte order is not little-endian", what);
    int rc = parse_pickle(r, &pickle, data->data, data->bytes, NULL);
    r->pickle = pickle;
    if (!rc) rc = read_dict(r);
    fa_pickle_free(pickle);
    return rc;
}

/* ---- before torch 1.6 ---- */

static const uint8_t old_magic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

/* Lists the storages of the dict by key, with the size of an element in blob.bytes: the data do not say it. */
static int list_storages(reader *r) {
    const fa_pval *dict = fa_pickle_root(r->pickle), *key, *value;
    uint32_t it = 0;
    storage s;
    if (!(r->blob = FA_NEWN(blob, dict->type == FA_P_DICT ? (size_t)dict->n + 1 : 1))) return no_memory(r);
    while (fa_pickle_next(r->pickle, dict, &it, &key, &value)) {
        const fa_pval *args = fa_pickle_behind(r->pickle, value), *first = fa_pickle_item(r->pickle, args, 0);
        if (first && first->type == FA_P_CALL) first = fa_pickle_item(r->pickle, fa_pickle_behind(r->pickle, first), 0);
        if (!read_storage(r, first, &s)) continue; /* read_entry says why, or passes over it */
        const int put = fa_smap_put(&r->keys, s.key, s.n_key, (uint32_t)r->keys.n);
        if (put < 0) return no_memory(r);
        if (put) r->blob[r->keys.n - 1] = (blob){NULL, fa_dtype_size((fa_dtype)globals[s.global].dtype)};
    }
    return FFAI_OK;
}

/* The data of the storages, in the order of a list of keys, from byte `at` on. */
static int find_blobs(reader *r, const fa_pickle *order, size_t at) {
    const fa_pval *list = fa_pickle_root(order), *none, *key;
    uint32_t it = 0, i;
    char shown[104];
    while (fa_pickle_next(order, list, &it, &none, &key)) {
        if (key->type != FA_P_STR || !fa_smap_get(&r->keys, key->u.s, key->n, &i) || r->blob[i].data)
            return fa_fail(r->err, FFAI_EFORMAT, "%s: storage %s belongs to no tensor, or is there twice", r->p->what,
                           key->type == FA_P_STR ? fa_zip_shown(shown, key->u.s, key->n) : "without a name");
        uint64_t n = 0;
        for (int k = 7; k >= 0 && r->size - at >= 8; k--) n = n << 8 | r->data[at + (size_t)k];
        if (r->size - at < 8 || n > (r->size - at - 8) / r->blob[i].bytes)
            return fa_fail(r->err, FFAI_EFORMAT, "%s: storage %s ends outside of the file (truncated file?)",
                           r->p->what, fa_zip_shown(shown, key->u.s, key->n));
        r->blob[i] = (blob){r->data + at + 8, (size_t)n * r->blob[i].bytes};
        at += 8 + r->blob[i].bytes;
    }
    return at == r->size ? FFAI_OK : fa_fail(r->err, FFAI_EFORMAT, "%s: bytes after its last storage", r->p->what);
}

static int read_old(reader *r) {
    fa_pickle *part[4] = {NULL}; /* version, machine, dict, order of storages */
    size_t at = sizeof old_magic, used = 0;
    int rc = FFAI_OK;
    for (int i = 0; i < 4 && !rc; i++, at += used) rc = parse_pickle(r, &part[i], r->data + at, r->size - at, &used);
    if (!rc) {
        const fa_pval *version = fa_pickle_root(part[0]), *key, *value;
        uint32_t it = 0;
        if (version->type != FA_P_INT || version->u.i != 1001)
            rc = fa_fail(r->err, FFAI_EFORMAT, "%s: not the version of torch.save that is known (1001)", r->p->what);
        while (!rc && fa_pickle_next(part[1], fa_pickle_root(part[1]), &it, &key, &value))
            if (fa_pval_is(key, "little_endian") && (value->type != FA_P_BOOL || !value->u.i))
                rc = fa_fail(r->err, FFAI_ENOTSUP, "%s: its byte order is not little-endian", r->p->what);
    }
    r->pickle = part[2];
    if (!rc) rc = list_storages(r);
    if (!rc) rc = find_blobs(r, part[3], at);
    if (!rc) rc = read_dict(r);
    for (int i = 0; i < 4; i++) fa_pickle_free(part[i]);
    fa_smap_free(&r->keys);
    fa_free(r->blob);
    return rc;
}

static int parse(reader *r) {
    fa_zip *zip = NULL;
    if (r->size > sizeof old_magic && !memcmp(r->data, old_magic, sizeof old_magic)) return read_old(r);
    if (r->size < 4 || memcmp(r->data, "PK\3\4", 4) != 0)
        return fa_fail(r->err, FFAI_EFORMAT, "%s: not a file of torch.save", r->p->what);
    int rc = fa_zip_parse(&zip, r->data, r->size, r->p->what, r->err);
    r->zip = zip;
    if (!rc) rc = read_archive(r);
    fa_zip_free(zip);
    return rc;
}

int fa_pt_parse(fa_pt **out, const uint8_t *data, size_t size, const char *what, fa_error *err) {
    *out = NULL;
    fa_pt *p = FA_NEW(fa_pt);
    if (!p || !(p->what = fa_strdup(what))) {
        fa_pt_free(p);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", what);
    }
    reader r = {.p = p, .data = data, .size = size, .err = err};
    int rc = parse(&r);
    if (rc) {
        fa_pt_free(p);
        return rc;
    }
    *out = p;
    return FFAI_OK;
}

int fa_pt_open(fa_pt **out, const char *path, fa_error *err) {
    fa_map m;
    *out = NULL;
    int rc = fa_map_open(&m, path, err);
    if (rc) return rc;
    rc = fa_pt_parse(out, m.data, m.size, path, err);
    if (rc)
        fa_map_close(&m);
    else
        (*out)->map = m;
    return rc;
}

void fa_pt_free(fa_pt *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n_tensor; i++)
        if (p->tensor[i].copied) fa_free((void *)(uintptr_t)p->tensor[i].data);
    fa_smap_free(&p->by_name);
    fa_free(p->tensor);
    fa_free(p->names);
    fa_free(p->what);
    fa_map_close(&p->map);
    fa_free(p);
}

size_t fa_pt_count(const fa_pt *p) { return p ? p->n_tensor : 0; }
const fa_st_tensor *fa_pt_at(const fa_pt *p, size_t i) { return i < fa_pt_count(p) ? &p->tensor[i] : NULL; }
const char *fa_pt_what(const fa_pt *p) { return p ? p->what : NULL; }
const fa_map *fa_pt_map(const fa_pt *p) { return &p->map; }

const fa_st_tensor *fa_pt_find(const fa_pt *p, const char *name) {
    uint32_t i;
    return p && fa_smap_get(&p->by_name, name, strlen(name), &i) ? &p->tensor[i] : NULL;
}
