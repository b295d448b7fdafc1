/* The public calls: from an id to a path that a model can be opened at. The cache is asked first; a revision counts as
 * there when its listing is (trees/) and every file that the model needs, or, without a listing (older versions of the
 * Python package write none), when the snapshot holds weights and all shards that an index names. */
#include "hub/hub.h"
#include "base/alloc.h"
#include "base/map.h"
#include "hub/hub_scan.h"
#include "io/json.h"

#include <curl/curl.h>
#include <string.h>

struct ffai_hub_model {
    fa_hub h;
    const char *path;
    bool dry; /* nothing was fetched: what is missing would be */
};

/* ---- options ---- */

static int check_opts(const ffai_hub_opts *o, fa_error *err) {
    if (!o || !o->cache || !*o->cache) return fa_fail(err, FFAI_EINVAL, "hub: no cache folder was named");
    if (o->endpoint && strncmp(o->endpoint, "https://", 8) != 0 && strncmp(o->endpoint, "http://", 7) != 0)
        return fa_fail(err, FFAI_EINVAL, "hub: the endpoint \"%.200s\" is no http or https address", o->endpoint);
    for (const char *p = o->token; p && *p; p++) /* the token itself goes into no message */
        if (*p <= ' ' || *p > '~') return fa_fail(err, FFAI_EINVAL, "hub: the token holds characters that none has");
    if (o->n_connection < 0 || o->n_connection > 64)
        return fa_fail(err, FFAI_EINVAL, "hub: %d connections are not between 0 and 64", o->n_connection);
    return 0;
}

static int open_hub(fa_hub *h, const char *id, const ffai_hub_opts *o, fa_error *err) {
    int rc = check_opts(o, err);
    if (!rc) rc = fa_hub_id_parse(&h->id, id, err);
    if (rc) return rc;
    h->o = *o;
    const char *end = o->endpoint && *o->endpoint ? o->endpoint : "https://huggingface.co";
    size_t n = strlen(end);
    while (n && end[n - 1] == '/') n--;
    h->endpoint = fa_mem_printf(&h->mem, "%.*s", (int)n, end);
    h->o.cache = fa_mem_printf(&h->mem, "%s", o->cache);
    h->o.token = o->token ? fa_mem_printf(&h->mem, "%s", o->token) : NULL;
    if (!h->endpoint || !h->o.cache || (o->token && !h->o.token)) return fa_fail(err, FFAI_ENOMEM, "hub: no memory");
    return fa_hub_open_dirs(h, err);
}

/* ---- the cache alone ---- */

/* Without a listing: are all shards there that the index names? */
static bool shards_there(const fa_hub *h, const char *snapshot) {
    fa_buf b = {0};
    fa_json *j = NULL;
    bool ok = true;
    fa_buf_printf(&b, "%s/model.safetensors.index.json", snapshot);
    if (fa_hub_tree_find(&h->tree, "model.safetensors.index.json") && !fa_hub_tree_find(&h->tree, "model.safetensors"))
        ok = !b.failed && fa_json_load(&j, b.data, NULL) == 0;
    const fa_jnode *map = fa_jget(fa_json_root(j), "weight_map");
    for (const fa_jnode *n = fa_jfirst(map); n && ok; n = fa_jnext(n)) {
        const char *name = fa_jstr(n, NULL);
        ok = name && fa_hub_tree_find(&h->tree, name);
    }
    fa_json_free(j);
    fa_buf_free(&b);
    return ok;
}

int fa_hub_look(fa_hub *h, fa_error *err) {
    char commit[41];
    fa_buf b = {0};
    if (!fa_hub_ref_read(h, h->id.revision, commit)) return 0;
    int rc = fa_hub_tree_read(h, commit, err);
    bool listed = rc > 0;
    fa_buf_printf(&b, "%s/snapshots/%s", h->repo_dir, commit);
    if (rc == 0) rc = b.failed ? fa_fail(err, FFAI_ENOMEM, "hub: no memory") : fa_hub_scan_snapshot(h, b.data, err);
    if (rc > 0 && listed) rc = fa_hub_find_blobs(h, err) ? FFAI_ENOMEM : 1;
    if (rc > 0 && fa_hub_select(h, err) != 0) rc = 0;
    for (size_t i = 0; i < h->tree.n && rc > 0; i++) {
        const fa_hub_file *f = &h->tree.file[i];
        fa_buf p = {0};
        if (!f->wanted) continue;
        fa_buf_printf(&p, "%s/%s", b.data, f->name);
        if (p.failed)
            rc = fa_fail(err, FFAI_ENOMEM, "hub: no memory");
        else if (!f->have || !fa_path_is_file(p.data))
            rc = 0;
        fa_buf_free(&p);
    }
    if (rc > 0 && !listed && !h->o.no_weights && !shards_there(h, b.data)) rc = 0;
    fa_buf_free(&b);
    return rc;
}

/* ---- with the hub ---- */

static int write_tag(const fa_hub *h, fa_error *err) {
    static const char tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                              "# This file marks a cache folder (https://bford.info/cachedir/).\n";
    fa_buf b = {0};
    fa_buf_printf(&b, "%s/CACHEDIR.TAG", h->o.cache);
    int rc = b.failed ? fa_fail(err, FFAI_ENOMEM, "hub: no memory") : 0;
    if (!rc && !fa_path_exists(b.data)) rc = fa_hub_write_file(b.data, tag, sizeof tag - 1, err);
    fa_buf_free(&b);
    return rc;
}

/* The listing, the contents, the links, and at the very end the name of the revision. */
static int store(fa_hub *h, fa_error *err) {
    int rc = fa_hub_mkdirs(h->o.cache, true, err);
    if (!rc) rc = write_tag(h, err);
    if (!rc) rc = fa_hub_fetch(h, err);
    for (size_t i = 0; i < h->tree.n && !rc; i++)
        if (h->tree.file[i].wanted) rc = fa_hub_link(h, &h->tree.file[i], err);
    if (!rc) rc = fa_hub_tree_write(h, err);
    if (!rc) rc = fa_hub_ref_write(h, err);
    return rc;
}

static int ask_hub(fa_hub *h, fa_error *err) {
    int rc = fa_hub_list_remote(h, err);
    if (!rc) rc = fa_hub_select(h, err);
    if (!rc) rc = fa_hub_find_blobs(h, err);
    if (!rc && !h->o.dry_run) rc = store(h, err);
    return rc;
}

static int not_cached(fa_hub *h, fa_error *err) {
    return fa_fail(err, FFAI_EIO,
                   "%s: revision \"%s\" is not in the cache (%s), or not all of it, and the hub may not be "
                   "asked (HF_HUB_OFFLINE)",
                   h->id.repo, h->id.revision, h->o.cache);
}

int ffai_hub_pull(ffai_hub_model **out, const char *id, const ffai_hub_opts *opts, ffai_error *err) {
    *out = NULL;
    if (!id) return fa_fail(err, FFAI_EINVAL, "hub: no id was given");
    ffai_hub_model *m = FA_NEW(ffai_hub_model);
    if (!m) return fa_fail(err, FFAI_ENOMEM, "hub: no memory");
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        fa_free(m);
        return fa_fail(err, FFAI_EINTERNAL, "hub: libcurl does not start");
    }
    fa_hub *h = &m->h;
    int rc = open_hub(h, id, opts, err), there = 0;
    if (!rc && (!h->o.update || h->o.offline)) there = fa_hub_look(h, err);
    if (there < 0) rc = there;
    if (!rc && !there) rc = h->o.offline ? not_cached(h, err) : ask_hub(h, err);
    m->dry = h->o.dry_run;
    const char *file = rc ? "" : fa_hub_model_file(&h->tree);
    if (!rc)
        m->path = fa_mem_printf(&h->mem, "%s/snapshots/%s%s%s", h->repo_dir, h->tree.commit, *file ? "/" : "", file);
    if (!rc && !m->path) rc = fa_fail(err, FFAI_ENOMEM, "hub: no memory");
    if (!rc && !m->dry) fa_hub_touch(h);
    curl_global_cleanup();
    if (rc)
        ffai_hub_model_free(m);
    else
        *out = m;
    return rc;
}

void ffai_hub_model_free(ffai_hub_model *m) {
    if (!m) return;
    fa_hub_tree_free(&m->h.tree);
    fa_mem_free(&m->h.mem);
    fa_free(m);
}

static int64_t fetched(const fa_hub_file *f) { return f->wanted && !f->have ? f->size - f->begun : 0; }

void ffai_hub_model_get_info(const ffai_hub_model *m, ffai_hub_model_info *in) {
    memset(in, 0, sizeof *in);
    in->path = m->path;
    in->repo = m->h.id.repo;
    in->revision = m->h.id.revision;
    in->commit = m->h.tree.commit;
    for (size_t i = 0; i < m->h.tree.n; i++) {
        const fa_hub_file *f = &m->h.tree.file[i];
        if (!f->wanted) continue;
        in->n_file++;
        in->bytes += f->size;
        in->n_fetched += !f->have;
        in->bytes_fetched += fetched(f);
    }
}

bool ffai_hub_model_file_at(const ffai_hub_model *m, size_t i, ffai_hub_file_info *in) {
    if (i >= m->h.tree.n) return false;
    const fa_hub_file *f = &m->h.tree.file[i];
    *in = (ffai_hub_file_info){.name = f->name, .bytes = f->size, .fetch = fetched(f), .used = f->wanted};
    return true;
}
