/* Contents that several repositories share. Newer versions of huggingface_hub keep files of Xet storage once, in
 * CACHE/blobs/HH/HASH, and blobs/ETAG of each repository is a link there; HASH.refs lists those links (a hint: each is
 * looked at), HASH.lock is its flock. ffai reads through the links as through any; when it removes one, it removes the
 * content after the last, by the same rules: what is not certain stays. */
#define _GNU_SOURCE
#include "base/alloc.h"
#include "base/map.h"
#include "hub/hub_scan.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_REFS = 16 << 20 };

void fa_hub_shared_hash(const char *blob, char hash[65]) {
    char target[4096];
    hash[0] = 0;
    ssize_t n = readlink(blob, target, sizeof target - 1);
    if (n < 64) return;
    target[n] = 0;
    const char *base = target + n - 64; /* ../../blobs/HH/HASH */
    if (!fa_hub_is_hex(base, 64) || n < 74 || base[-1] != '/' || strncmp(base - 3, base, 2) != 0 ||
        strncmp(base - 10, "/blobs/", 7) != 0)
        return;
    strcpy(hash, base);
}

/* Does this line of a manifest, a path below the cache, name a link to the content? */
static bool is_user(const char *cache, const char *line, size_t len, const char *hash) {
    fa_buf b = {0};
    char to[65] = "";
    fa_buf_printf(&b, "%s/%.*s", cache, (int)len, line);
    char *name = b.failed ? NULL : b.data + strlen(cache) + 1;
    if (name && fa_hub_name_ok(name, strlen(name))) fa_hub_shared_hash(b.data, to);
    fa_buf_free(&b);
    return !strcmp(to, hash);
}

int fa_hub_shared_users(const char *cache, const char *hash) {
    fa_buf b = {0};
    char *text = NULL;
    size_t len = 0;
    int n = 0;
    fa_buf_printf(&b, "%s/blobs/%.2s/%s.refs", cache, hash, hash);
    if (b.failed || fa_read_file(&text, &len, b.data, MAX_REFS, NULL) != 0) n = -1;
    for (char *p = text; p && n >= 0 && p < text + len;) {
        size_t k = strcspn(p, "\n");
        bool again = false; /* a line may be there twice */
        for (char *q = text; q < p && !again; q += strcspn(q, "\n") + 1)
            again = strcspn(q, "\n") == k && !memcmp(p, q, k);
        n += !again && is_user(cache, p, k, hash);
        p += k + 1;
    }
    fa_free(text);
    fa_buf_free(&b);
    return n;
}

bool fa_hub_shared_drop(const char *cache, const char *hash) {
    fa_buf b = {0};
    bool gone = false;
    fa_buf_printf(&b, "%s/blobs/%.2s/%s.lock", cache, hash, hash);
    int lock = b.failed ? -1 : fa_hub_lock(b.data, NULL);
    if (lock >= 0 && fa_hub_shared_users(cache, hash) == 0) {
        b.data[b.len - strlen(".lock")] = 0;
        gone = unlink(b.data) == 0;
        strcat(b.data, ".refs"); /* as long as .lock */
        if (gone) unlink(b.data);
    }
    if (lock >= 0) close(lock);
    fa_buf_free(&b);
    return gone;
}
