/* SHA-256 and git's blob id (SHA-1 of "blob SIZE\0" and the contents) by libcrypto, which uses the processor's
 * instructions for them. */
#include "base/alloc.h"
#include "hub/hub.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

struct fa_hub_hash {
    EVP_MD_CTX *ctx;
};

fa_hub_hash *fa_hub_hash_new(size_t etag_len, int64_t size) {
    fa_hub_hash *h = FA_NEW(fa_hub_hash);
    if (!h) return NULL;
    bool git = etag_len == 40;
    char head[40];
    int n = snprintf(head, sizeof head, "blob %lld", (long long)size) + 1;
    h->ctx = EVP_MD_CTX_new();
    bool ok = h->ctx && EVP_DigestInit_ex(h->ctx, git ? EVP_sha1() : EVP_sha256(), NULL) == 1;
    if (ok && git) ok = EVP_DigestUpdate(h->ctx, head, (size_t)n) == 1;
    if (ok) return h;
    fa_hub_hash_free(h);
    return NULL;
}

bool fa_hub_hash_add(fa_hub_hash *h, const void *data, size_t n) { return EVP_DigestUpdate(h->ctx, data, n) == 1; }

bool fa_hub_hash_hex(fa_hub_hash *h, char out[65]) {
    unsigned char d[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    out[0] = 0;
    if (EVP_DigestFinal_ex(h->ctx, d, &n) != 1 || n > 32) return false;
    for (unsigned i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", d[i]);
    return true;
}

void fa_hub_hash_free(fa_hub_hash *h) {
    if (h) EVP_MD_CTX_free(h->ctx);
    fa_free(h);
}
