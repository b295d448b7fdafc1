/* The writer: one thread that takes the bytes of downloads in order, writes them behind what is there, and hashes them.
 * Whoever feeds it hands the block over. */
#ifndef FA_HUB_HUB_WRITE_H
#define FA_HUB_HUB_WRITE_H

#include "hub/hub.h"

typedef struct fa_hub_writer fa_hub_writer;

/* A file in the making. */
typedef struct fa_hub_sink {
    int fd;
    int64_t size;    /* when it is complete */
    int64_t written; /* bytes on disk and in the hash; the writer's */
    fa_hub_hash *hash;
    const char *etag; /* what the hash must be */
    const char *path; /* for messages */
    int queued;       /* blocks that are not written yet */
    bool done, bad;   /* complete; complete with another hash */
    char got[65];     /* that hash */
    int error;        /* errno of a write that failed; nothing is written after it */
} fa_hub_sink;

/* wake: called from the writer's thread after each block. */
int fa_hub_writer_start(fa_hub_writer **out, void (*wake)(void *user), void *user, fa_error *err);
/* After what is queued; frees it. NULL is fine. */
void fa_hub_writer_stop(fa_hub_writer *w);
/* data [n], from fa_hub_writer_block, belongs to the writer from now on, also when this fails. NULL: the first n bytes
 * of the file are there already and are only hashed. */
bool fa_hub_writer_feed(fa_hub_writer *w, fa_hub_sink *s, void *data, size_t n);
/* A block of FA_HUB_BLOCK bytes, one that was written before if there is one: fresh memory costs a page fault for every
 * 4 KiB, which is half as much as hashing them. NULL: no memory. fa_hub_writer_give takes it back unused. */
enum { FA_HUB_BLOCK = 16 << 20 }; /* also the length of a request: long against a round trip, short against memory */
void *fa_hub_writer_block(fa_hub_writer *w);
void fa_hub_writer_give(fa_hub_writer *w, void *data);
/* Blocks of the queue that hold data; waits until there are at most `most`. */
void fa_hub_writer_wait(fa_hub_writer *w, size_t most);
/* What is known of a sink, read together. */
typedef struct fa_hub_sink_state {
    int64_t written;
    int queued, error;
    bool done, bad;
} fa_hub_sink_state;
fa_hub_sink_state fa_hub_writer_state(fa_hub_writer *w, const fa_hub_sink *s);
size_t fa_hub_writer_queued(fa_hub_writer *w);
/* Waits until nothing of this sink is queued. */
void fa_hub_writer_drain(fa_hub_writer *w, const fa_hub_sink *s);

#endif
