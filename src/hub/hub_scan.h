/* What is in a cache folder. */
#ifndef FA_HUB_HUB_SCAN_H
#define FA_HUB_HUB_SCAN_H

#include "hub/hub.h"

typedef struct fa_hub_blob {
    char *name;
    int64_t size, used; /* bytes; seconds since 1970 */
    int n_user;         /* revisions that link to it */
    size_t last_user;   /* the last revision that was counted, + 1 */
    char shared[65];    /* it is a link to this content of the whole cache, "" */
} fa_hub_blob;

typedef struct fa_hub_rev {
    char *commit, *refs;
    int64_t n_file, bytes, own, used;
    size_t *blob; /* [n_blob] indices into the repository's blobs, each once */
    size_t n_blob, cap;
    bool complete;
} fa_hub_rev;

typedef struct fa_hub_repo {
    char *repo, *dir, *lock_dir; /* "org/name" */
    const char *cache;
    fa_hub_blob *blob; /* [n_blob], in the order of names; unfinished downloads too */
    fa_hub_rev *rev;   /* [n_rev] */
    size_t n_blob, n_rev;
} fa_hub_repo;

struct ffai_hub_list {
    fa_hub_repo *repo; /* [n] */
    size_t n;
    int64_t loose;
    fa_mem mem;
};

/* Scans one repository, the folder models--org--name of the cache. */
int fa_hub_scan_repo(fa_hub_repo *r, fa_mem *mem, const char *cache, const char *folder, fa_error *err);
void fa_hub_repo_free(fa_hub_repo *r); /* not the strings: those are mem's */

/* Fills h->tree from the files of a snapshot, as far as they are there. 1: there are some. */
int fa_hub_scan_snapshot(fa_hub *h, const char *dir, fa_error *err);
/* ---- contents that repositories share (hub_shared.c) ---- */

/* The hash of the shared content that a blob is a link to, "" for any other file. */
void fa_hub_shared_hash(const char *blob, char hash[65]);
/* Links to it; -1: not known. */
int fa_hub_shared_users(const char *cache, const char *hash);
/* Removes it when nothing links to it any more; whether it did. */
bool fa_hub_shared_drop(const char *cache, const char *hash);

/* Names in a folder, sorted, without "." and ".."; a folder that does not exist is empty. Free with fa_hub_names_free.
 */
int fa_hub_names(char ***names, size_t *n, const char *dir, fa_error *err);
void fa_hub_names_free(char **names, size_t n);

#endif
