/* Any bytes as what a hub says and as what lies in its cache: a model's id, a NUL, lines of an answer's head, a NUL, a
 * listing. What is accepted stays inside of its folder. */
#define _XOPEN_SOURCE 700
#include "folder.h"
#include "hub/hub.h"
#include "hub/hub_scan.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define REPO   "models--acme--demo"

/* Does a path lead out of its folder? */
static bool climbs(const char *path) {
    if (*path == '/') return true;
    for (const char *s = path; s; s = strchr(s, '/') ? strchr(s, '/') + 1 : NULL)
        if (!strncmp(s, "..", 2) && (!s[2] || s[2] == '/')) return true;
    return false;
}

static void check_names(const fa_hub_tree *t) {
    for (size_t i = 0; i < t->n; i++) {
        const fa_hub_file *f = &t->file[i];
        if (climbs(f->name)) abort();
        if (f->size < 0 || !fa_hub_is_hex(f->etag, strlen(f->etag)) || !fa_hub_name_ok(f->name, strlen(f->name)))
            abort();
    }
}

static void head(const char *s, size_t n) {
    fa_hub_reply r = {.range_at = -1, .range_total = -1};
    for (size_t i = 0; i < n;) {
        const char *end = (const char *)memchr(s + i, '\n', n - i);
        const size_t len = end ? (size_t)(end - (s + i)) + 1 : n - i;
        char *line = (char *)malloc(len);
        memcpy(line, s + i, len);
        if (fa_hub_header(line, 1, len, &r) != len) abort();
        free(line);
        i += len;
    }
    if (*r.next && fa_hub_may_follow("https://hub.example", r.next)) {
        char host[100];
        fa_hub_host(r.next, host, sizeof host);
        if (strncmp(host, "https://", 8) != 0) abort();
    }
    if (fa_hub_backoff(0, &r) > 1e9) abort();
    fa_hub_reply_free(&r);
}

static void listing(const fa_hub_id *id, const char *json, size_t n) {
    fa_hub h = {.id = *id, .endpoint = "https://hub.example"};
    fa_error err = {0};
    fa_hub_id_parse(&h.id, "acme/demo", &err);
    int rc = fa_hub_list_page(&h, json, n, &err);
    check_error(rc, &err);
    if (!rc) check_error(rc = fa_hub_tree_sort(&h.tree, "fuzz", &err), &err);
    if (!rc) {
        check_names(&h.tree);
        memcpy(h.id.pick, id->pick, sizeof h.id.pick);
        check_error(fa_hub_select(&h, &err), &err);
        const char *file = fa_hub_model_file(&h.tree);
        if (file && *file && !fa_hub_tree_find(&h.tree, file)) abort();
    }
    fa_hub_tree_free(&h.tree);
    fa_mem_free(&h.mem);
}

/* The same bytes as files that somebody has put into the cache. */
static void cache(const char *json, size_t n, const char *ref, size_t n_ref) {
    fa_error err = {0};
    ffai_hub_list *l;
    ffai_hub_cached c;
    static const char *const folders[] = {
        REPO, REPO "/refs", REPO "/trees", REPO "/snapshots", REPO "/blobs", REPO "/snapshots/" COMMIT};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) folder_make(folders[i]);
    folder_put(REPO "/refs/main", ref, n_ref);
    folder_put(REPO "/trees/" COMMIT ".json", json, n);
    int rc = ffai_hub_list_create(&l, folder(), &err);
    check_error(rc, &err);
    for (size_t i = 0; !rc && ffai_hub_list_at(l, i, &c); i++) {
    }
    ffai_hub_list_free(l);
    fa_hub h = {.endpoint = "https://hub.example"};
    h.o.cache = folder();
    fa_hub_id_parse(&h.id, "acme/demo", &err);
    if (fa_hub_open_dirs(&h, &err) == 0 && fa_hub_tree_read(&h, COMMIT, &err) > 0) {
        check_names(&h.tree);
        fa_hub_find_blobs(&h, &err);
    }
    fa_hub_tree_free(&h.tree);
    fa_mem_free(&h.mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pieces p = {data, data + size};
    size_t n, n_head;
    fa_error err = {0};
    fa_hub_id id = {{0}, {0}, {0}};
    char text[500];
    const char *s = next_piece(&p, &n);
    snprintf(text, sizeof text, "%.*s", (int)(n < 499 ? n : 499), s);
    if (fa_hub_id_parse(&id, text, &err) == 0 && (climbs(id.repo) || climbs(id.revision) || !*id.repo)) abort();
    ffai_hub_is_id(text);
    fa_hub_glob(text, "model.safetensors");
    const char *lines = next_piece(&p, &n_head);
    head(lines, n_head);
    listing(&id, (const char *)p.at, (size_t)(p.end - p.at));
    cache((const char *)p.at, (size_t)(p.end - p.at), lines, n_head);
    return 0;
}
