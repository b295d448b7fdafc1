/* Two questions to the hub: which commit a revision is, and what files it holds.
 *   GET /api/models/ORG/NAME/revision/REV        {"sha": ...}
 *   GET /api/models/ORG/NAME/tree/SHA?recursive  [{"type": "file", "path", "size", "oid", "lfs": {"oid", "size"},
 * "xetHash"}], in pages that Link headers chain */
#include "hub/hub.h"
#include "io/json.h"

#include <string.h>

enum { MAX_INFO = 64 << 20, MAX_PAGE = 64 << 20, MAX_PAGES = 1000 };

static int find_commit(fa_hub *h, fa_error *err) {
    fa_hub_reply r = {0};
    fa_json *j = NULL;
    char *url, *middle = fa_mem_printf(&h->mem, "api/models/%s/revision", h->id.repo);
    if (!middle) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    int rc = fa_hub_url(h, &url, err, middle, h->id.revision, NULL);
    if (!rc) rc = fa_hub_get(h, url, MAX_INFO, &r, err);
    if (!rc) rc = fa_json_parse(&j, r.body.data ? r.body.data : "", r.body.len, h->id.repo, err);
    const char *sha = fa_jstr(fa_jget(fa_json_root(j), "sha"), NULL);
    if (!rc && !fa_hub_is_hex(sha, 40))
        rc = fa_fail(err, FFAI_EFORMAT, "%s: the hub names no commit for revision \"%s\"", h->id.repo, h->id.revision);
    if (!rc) strcpy(h->tree.commit, sha);
    fa_json_free(j);
    fa_hub_reply_free(&r);
    return rc;
}

int fa_hub_list_page(fa_hub *h, const char *text, size_t len, fa_error *err) {
    fa_json *j = NULL;
    int rc = fa_json_parse(&j, text, len, h->id.repo, err);
    if (!rc && fa_jtype_of(fa_json_root(j)) != FA_JARR)
        rc = fa_fail(err, FFAI_EFORMAT, "%s: the hub's listing is no array", h->id.repo);
    for (const fa_jnode *n = rc ? NULL : fa_jfirst(fa_json_root(j)); n && !rc; n = fa_jnext(n)) {
        const char *type = fa_jstr(fa_jget(n, "type"), NULL);
        const fa_jnode *lfs = fa_jget(n, "lfs");
        const char *sha = fa_jstr(fa_jget(lfs, "oid"), NULL);
        size_t n_name = 0;
        const char *name = fa_jstr(fa_jget(n, "path"), &n_name);
        if (!type || strcmp(type, "file") != 0) continue;
        rc = fa_hub_tree_add(&h->tree, name, n_name, fa_jint(fa_jget(sha ? lfs : n, "size"), -1),
                             fa_jstr(fa_jget(n, "oid"), NULL), sha, fa_jstr(fa_jget(n, "xetHash"), NULL), h->id.repo,
                             err);
    }
    fa_json_free(j);
    return rc;
}

static int list_files(fa_hub *h, fa_error *err) {
    fa_hub_reply r = {0};
    char *url, *middle = fa_mem_printf(&h->mem, "api/models/%s/tree", h->id.repo);
    if (!middle) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    int rc = fa_hub_url(h, &url, err, middle, h->tree.commit, NULL);
    if (!rc && !(url = fa_mem_printf(&h->mem, "%s?recursive=true&expand=false", url)))
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    for (int page = 0; !rc && url; page++) {
        if (page == MAX_PAGES) rc = fa_fail(err, FFAI_ELIMIT, "%s: a listing of more than %d pages", h->id.repo, page);
        if (!rc) rc = fa_hub_get(h, url, MAX_PAGE, &r, err);
        if (!rc) rc = fa_hub_list_page(h, r.body.data ? r.body.data : "", r.body.len, err);
        if (rc || !*r.next) break;
        if (!fa_hub_may_follow(h->endpoint, r.next))
            rc = fa_fail(err, FFAI_EFORMAT, "%s: the listing goes on at \"%.100s\"", h->id.repo, r.next);
        else if (!(url = fa_mem_printf(&h->mem, "%s", r.next)))
            rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    }
    fa_hub_reply_free(&r);
    return rc;
}

int fa_hub_list_remote(fa_hub *h, fa_error *err) {
    fa_hub_tree_free(&h->tree);
    int rc = find_commit(h, err);
    if (!rc) {
        char commit[41];
        strcpy(commit, h->tree.commit);
        rc = fa_hub_tree_read(h, commit, err); /* a commit never changes */
        if (rc > 0) return 0;
    }
    if (!rc) rc = list_files(h, err);
    if (!rc) rc = fa_hub_tree_sort(&h->tree, h->id.repo, err);
    if (!rc && !h->tree.n) rc = fa_fail(err, FFAI_EIO, "%s: the repository is empty", h->id.repo);
    return rc;
}
