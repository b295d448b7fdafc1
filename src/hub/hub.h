/* The hub, inside: repositories of models on a server that speaks the API of huggingface.co, and the cache folder that
 * Python's huggingface_hub keeps of them. The layout, the names of locks and the meaning of etags are that package's:
 *
 *   CACHE/models--ORG--NAME/refs/REVISION            the commit that a branch or tag stood for, 40 hex digits
 *   CACHE/models--ORG--NAME/blobs/ETAG               contents: SHA-256 of a large (LFS) file, git blob id of a small
 * one CACHE/models--ORG--NAME/blobs/ETAG.incomplete    the first bytes of it
 *   CACHE/models--ORG--NAME/snapshots/COMMIT/PATH    symbolic links into blobs
 *   CACHE/models--ORG--NAME/trees/COMMIT.json        what the repository held at that commit
 *   CACHE/.locks/models--ORG--NAME/ETAG.lock         flock while a blob is written
 *
 * Everything that a server sends is hostile until it is checked: names (fa_hub_name_ok), hashes (fa_hub_is_hex), sizes.
 */
#ifndef FA_HUB_HUB_H
#define FA_HUB_HUB_H

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

typedef struct fa_hub_id {
    char repo[200];     /* "org/name" */
    char revision[200]; /* branch, tag or commit; "main" when none was given */
    char pick[100];     /* what stands after a colon: part of the name of a GGUF file; "" */
} fa_hub_id;

typedef struct fa_hub_file {
    char *name;    /* path inside the repository, fa_hub_name_ok */
    int64_t size;  /* bytes */
    char etag[65]; /* name of its blob: SHA-256 (64 digits) of an LFS file, else the git blob id (40 digits) */
    char oid[41];  /* git blob id; of an LFS file that of its pointer */
    char xet[65];  /* hash of the file in Xet storage, "" */
    bool wanted;   /* selected for download */
    bool have;     /* its blob or a file in the snapshot is there with the right size */
    int64_t begun; /* bytes of it in an unfinished download */
} fa_hub_file;

typedef struct fa_hub_tree {
    char commit[41];
    fa_hub_file *file; /* [n], in the order of names */
    size_t n, cap;
    fa_mem mem; /* of the names */
} fa_hub_tree;

typedef struct fa_hub {
    ffai_hub_opts o;
    fa_hub_id id;
    const char *endpoint; /* no slash at the end */
    fa_hub_tree tree;
    const char *repo_dir, *lock_dir; /* CACHE/models--..., CACHE/.locks/models--... */
    fa_mem mem;
} fa_hub;

/* ---- names (hub_id.c) ---- */

/* "org/name[:part][@revision]". */
int fa_hub_id_parse(fa_hub_id *id, const char *text, fa_error *err);
/* A path that stays inside its folder: no "..", no absolute one, no backslash, no control characters, no drive. */
bool fa_hub_name_ok(const char *name, size_t len);
bool fa_hub_is_hex(const char *s, size_t n); /* exactly n lower-case digits */
/* Python's fnmatch: * matches slashes too; "dir/" stands for all of a folder. */
bool fa_hub_glob(const char *pattern, const char *name);
bool fa_hub_ends(const char *s, const char *end);

/* ---- hashes (hub_hash.c) ---- */

typedef struct fa_hub_hash fa_hub_hash;
/* The hash that an etag is made of, over a file of `size` bytes: SHA-256, or git's blob id. NULL: no memory. */
fa_hub_hash *fa_hub_hash_new(size_t etag_len, int64_t size);
bool fa_hub_hash_add(fa_hub_hash *h, const void *data, size_t n);
bool fa_hub_hash_hex(fa_hub_hash *h, char out[65]); /* ends it */
void fa_hub_hash_free(fa_hub_hash *h);

/* ---- the cache folder (hub_cache.c) ---- */

int fa_hub_open_dirs(fa_hub *h, fa_error *err); /* fills the folder names; writes nothing */
int fa_hub_mkdirs(const char *path, bool with_last, fa_error *err);
/* Writes a small file under another name and renames it. */
int fa_hub_write_file(const char *path, const char *text, size_t len, fa_error *err);
/* The commit of a revision in the cache: from refs, or the revision itself when it is a commit. false: not there. */
bool fa_hub_ref_read(const fa_hub *h, const char *revision, char commit[41]);
int fa_hub_ref_write(const fa_hub *h, fa_error *err);
int fa_hub_tree_write(const fa_hub *h, fa_error *err);
/* 1: read; 0: there is none that can be used. */
int fa_hub_tree_read(fa_hub *h, const char *commit, fa_error *err);
/* Marks the files whose contents are in the cache. */
int fa_hub_find_blobs(fa_hub *h, fa_error *err);
/* Puts the link of a file into the snapshot. */
int fa_hub_link(const fa_hub *h, const fa_hub_file *f, fa_error *err);
/* flock on a lock file: its descriptor, -1 when somebody else holds it, -2 and *err when it cannot be made. */
int fa_hub_lock(const char *path, fa_error *err);
/* True while somebody downloads into this repository. */
bool fa_hub_repo_busy(const char *lock_dir);
/* Sets the time of last use of the snapshot's wanted files. */
void fa_hub_touch(const fa_hub *h);

/* ---- listings (hub_tree.c) ---- */

/* A file of a listing; refuses names and hashes that are not what they should be. */
int fa_hub_tree_add(fa_hub_tree *t, const char *name, size_t len, int64_t size, const char *oid, const char *sha256,
                    const char *xet, const char *what, fa_error *err);
int fa_hub_tree_sort(fa_hub_tree *t, const char *what, fa_error *err); /* and refuses a name that comes twice */
fa_hub_file *fa_hub_tree_find(const fa_hub_tree *t, const char *name);
void fa_hub_tree_free(fa_hub_tree *t);

/* ---- selection (hub_select.c) ---- */

/* Sets `wanted`. Nothing that can be a model is an error unless patterns were given. */
int fa_hub_select(fa_hub *h, fa_error *err);
/* What ffai_model_open takes, below the snapshot: "" for the folder itself, or a .gguf file. */
const char *fa_hub_model_file(const fa_hub_tree *t);

/* ---- requests (hub_net.c) ---- */

typedef struct fa_hub_reply {
    long status;
    fa_buf body;
    size_t max; /* longer bodies are refused */
    char error_code[64], error_text[200];
    char next[2048]; /* Link: rel="next" */
    double retry_after;
    int64_t range_at, range_total; /* Content-Range; -1 */
} fa_hub_reply;

/* One GET of a small document, repeated while that may help. */
int fa_hub_get(fa_hub *h, const char *url, size_t max, fa_hub_reply *r, fa_error *err);
/* A line of the answer's head, as libcurl hands it over; reply: fa_hub_reply *. */
size_t fa_hub_header(char *line, size_t one, size_t len, void *reply);
void fa_hub_reply_free(fa_hub_reply *r);
/* Prepares a request: only http(s), no redirects followed, the token only if the URL is the endpoint's. `easy` is a
 * CURL *, *headers a curl_slist ** to free after the transfer. */
int fa_hub_prepare(const fa_hub *h, void *easy, const char *url, fa_hub_reply *r, void **headers, fa_error *err);
/* Whether both have the same scheme, host and port. */
bool fa_hub_same_origin(const char *a, const char *b);
bool fa_hub_may_follow(const char *from, const char *to); /* http(s), and never from https to http */
/* Seconds before attempt n + 1; < 0: no more. */
double fa_hub_backoff(int n, const fa_hub_reply *r);
bool fa_hub_status_again(long status);
bool fa_hub_curl_again(int curl_code);
/* Why a transfer failed, in words. */
const char *fa_hub_why(int curl_code);
/* The message for a status that ends it. what: "org/name" or "org/name: file". */
int fa_hub_refused(const fa_hub *h, const char *what, const fa_hub_reply *r, fa_error *err);
/* scheme://host[:port] for messages: the rest of a URL may hold signatures. */
void fa_hub_host(const char *url, char *out, size_t size);
/* Sleeps in small steps, asking `progress` whether to go on. */
int fa_hub_wait(fa_hub *h, double seconds, fa_error *err);
int fa_hub_url(fa_hub *h, char **url, fa_error *err, const char *middle, const char *revision, const char *path);

/* 1: everything that is wanted is in the cache, and the tree tells what; 0: no (hub.c) */
int fa_hub_look(fa_hub *h, fa_error *err);

/* ---- the API (hub_api.c) and files (hub_fetch.c) ---- */

int fa_hub_list_remote(fa_hub *h, fa_error *err); /* fills the tree */
/* Adds one page of the hub's listing to it. */
int fa_hub_list_page(fa_hub *h, const char *text, size_t len, fa_error *err);
int fa_hub_fetch(fa_hub *h, fa_error *err); /* every wanted file that is not there */

#endif
