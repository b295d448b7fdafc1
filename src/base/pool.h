/* A pool of threads that walk one job together. The caller is thread 0. Between jobs the workers spin for a short while
 * (decode steps follow each other within microseconds), then sleep. */
#ifndef FA_BASE_POOL_H
#define FA_BASE_POOL_H

#include "base/err.h"

typedef struct fa_pool fa_pool;

/* Where threads run. AUTO: on a hybrid machine they stay on the processors of its fast cores, as long as there is one
 * core for each; elsewhere the system places them. ON: each on a processor of its own, one per core and in turn over
 * the memory nodes before two on a core; the caller too, while a job runs. OFF: the system places them. */
typedef enum fa_pin { FA_PIN_AUTO, FA_PIN_OFF, FA_PIN_ON } fa_pin;

/* n_thread >= 1 counts the caller. */
int fa_pool_create(fa_pool **out, int n_thread, fa_error *err);
void fa_pool_free(fa_pool *p);
int fa_pool_size(const fa_pool *p);
/* A new pool's threads are where the system places them. Gives what came of it: AUTO when they stay on fast cores, ON,
 * or OFF, also where the system lets nobody choose. Between jobs only. */
fa_pin fa_pool_pin(fa_pool *p, fa_pin pin);
/* Runs fn(arg, ith, n_thread) on every thread and returns when all have returned. */
void fa_pool_run(fa_pool *p, void (*fn)(void *arg, int ith, int n_thread), void *arg);

/* Inside fn. Work items 0..n-1 of the current phase, handed out `step` at a time: returns the first item of the next
 * batch, >= n when none is left. Every thread must call fa_pool_barrier between two phases (it also rewinds the item
 * counter). */
int64_t fa_pool_take(fa_pool *p, int64_t step);
void fa_pool_barrier(fa_pool *p);

#endif
