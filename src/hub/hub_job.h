/* One file of a download: its lock, its unfinished copy, the parts that are on their way. Parts are ranges in the order
 * of the file; they arrive in any order and reach the writer in order, so what is on disk is always a beginning of the
 * file and the next attempt can go on there, whatever ended this one. */
#ifndef FA_HUB_HUB_JOB_H
#define FA_HUB_HUB_JOB_H

#include "hub/hub_write.h"

struct fa_hub_job;

typedef enum fa_hub_part_state { FA_HUB_IDLE, FA_HUB_ACTIVE, FA_HUB_DONE } fa_hub_part_state;

typedef struct fa_hub_part {
    struct fa_hub_part *next;
    struct fa_hub_job *job;
    fa_hub_part_state state;
    int64_t at;       /* of its first byte in the file */
    size_t want, got; /* bytes */
    size_t asked_got; /* what was there when the running request was made */
    uint8_t *data;    /* [FA_HUB_BLOCK], the first `want` in use */
    void *easy;       /* CURL of the running request */
    void *headers;
    fa_hub_reply reply;
    bool checked, skip;  /* the answer's head was looked at; its body is of no use */
    bool ranged;         /* the request named a range */
    bool wrong, restart; /* another range or size than asked for; no ranges where one is needed */
    const char *used;    /* the address of the request when it was not the endpoint's, as fa_hub_job.moved */
    int tries, hops;
    double not_before;
} fa_hub_part;

typedef enum fa_hub_job_state { FA_HUB_WAITING, FA_HUB_RUNNING, FA_HUB_FINISHED } fa_hub_job_state;

typedef struct fa_hub_job {
    fa_hub *h;
    fa_hub_file *f;
    fa_hub_job_state state;
    fa_hub_sink sink;
    int lock_fd;
    const char *what; /* "org/name: file", for messages */
    const char *tmp, *blob, *lock;
    char *url, *moved; /* at the endpoint; where it redirects to, or NULL */
    int renewals, restarts, mismatches;
    int64_t next, fed; /* first byte that no part has; first one that the writer was not given */
    bool known, whole; /* ranges work; they do not: one request gives the whole file */
    bool foreign;      /* somebody else made the blob while this waited for the lock */
    double lock_again; /* when to ask for the lock again */
    fa_hub_part *first, *last;
    int n_part, n_active;
} fa_hub_job;

int fa_hub_job_init(fa_hub_job *j, fa_hub *h, fa_hub_file *f, fa_error *err);
/* Takes the lock, opens the unfinished copy and lets the writer hash what it holds. A job whose lock is taken stays
 * FA_HUB_WAITING; one whose blob is there by now is finished. */
int fa_hub_job_start(fa_hub_job *j, fa_hub_writer *w, fa_error *err);
/* A part for the next bytes, at most FA_HUB_BLOCK; NULL: no memory. */
fa_hub_part *fa_hub_job_part(fa_hub_job *j, fa_hub_writer *w);
/* Gives the writer what has come in order; all: also the bytes of a part that is not complete. false: no memory. */
bool fa_hub_job_feed(fa_hub_job *j, fa_hub_writer *w, bool all);
/* Begins again with an empty file; its requests are over. */
int fa_hub_job_reset(fa_hub_job *j, fa_hub_writer *w, fa_error *err);
/* The copy is complete and verified: gives it its name. */
int fa_hub_job_publish(fa_hub_job *j, fa_error *err);
void fa_hub_job_drop_parts(fa_hub_job *j, fa_hub_writer *w);
/* Closes files and lets the lock go; the unfinished copy stays. */
void fa_hub_job_close(fa_hub_job *j);
int64_t fa_hub_job_bytes(const fa_hub_job *j); /* that are here, in whatever order */

#endif
