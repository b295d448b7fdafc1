/* The thread pool: a sense-counting barrier with bounded spinning and a futex behind it. */
#define _GNU_SOURCE
#include "base/pool.h"
#include "base/alloc.h"
#include "base/cpus.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

/* Spins before sleeping (a pause takes some 40 ns on current x86): about 100 us inside a step, 250 us between steps. */
enum { SPIN_BARRIER = 2500, SPIN_IDLE = 6000 };

typedef struct event { /* a counter that threads can wait on */
    _Alignas(64) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
} event;

struct fa_pool {
    event job;     /* one more per job; UINT32_MAX is never special: quit says when to leave */
    event barrier; /* one more per completed barrier */
    _Alignas(64) _Atomic int arrived;
    _Alignas(64) _Atomic int64_t next; /* item counter of the current phase */
    void (*fn)(void *arg, int ith, int n_thread);
    void *arg;
    bool quit;
    int spin_barrier, spin_idle; /* 0 when there are more threads than processors, or than a cgroup pays for: who spins
                                    keeps another from working */
    bool keep_caller;            /* on caller_on, while a job runs */
    fa_cpu_set caller_on;
    int n_thread, n_started;
    pthread_t *thread; /* [n_thread - 1] */
};

typedef struct worker_arg {
    fa_pool *pool;
    int ith;
} worker_arg;

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wait_change(event *e, uint32_t old, int spins) {
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(&e->value, memory_order_acquire) != old) return;
        relax();
    }
    atomic_fetch_add(&e->sleepers, 1);
    while (atomic_load(&e->value) == old) {
#if defined(__linux__)
        syscall(SYS_futex, (uint32_t *)&e->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
#else
        sched_yield();
#endif
    }
    atomic_fetch_sub(&e->sleepers, 1);
}

static void advance(event *e) {
    atomic_fetch_add(&e->value, 1);
    if (atomic_load(&e->sleepers) == 0) return;
#if defined(__linux__)
    syscall(SYS_futex, (uint32_t *)&e->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#endif
}

void fa_pool_barrier(fa_pool *p) {
    if (p->n_thread == 1) {
        atomic_store_explicit(&p->next, 0, memory_order_relaxed);
        return;
    }
    uint32_t old = atomic_load_explicit(&p->barrier.value, memory_order_acquire);
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == p->n_thread - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&p->next, 0, memory_order_relaxed);
        advance(&p->barrier);
    } else {
        wait_change(&p->barrier, old, p->spin_barrier);
    }
}

int64_t fa_pool_take(fa_pool *p, int64_t step) {
    return atomic_fetch_add_explicit(&p->next, step, memory_order_relaxed);
}

static void *worker_main(void *arg) {
    worker_arg *w = (worker_arg *)arg;
    fa_pool *p = w->pool;
    int ith = w->ith;
    fa_free(w);
    for (uint32_t seen = 0;; seen++) {
        wait_change(&p->job, seen, p->spin_idle);
        if (p->quit) return NULL;
        p->fn(p->arg, ith, p->n_thread);
        fa_pool_barrier(p);
    }
}

void fa_pool_run(fa_pool *p, void (*fn)(void *arg, int ith, int n_thread), void *arg) {
    fa_cpu_set before;
    bool moved = p->keep_caller && fa_cpus_stay(&p->caller_on, &before);
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    if (p->n_thread > 1) advance(&p->job);
    fn(arg, 0, p->n_thread);
    fa_pool_barrier(p);
    if (moved) fa_cpus_stay(&before, NULL);
}

/* Signals are the business of the program's own threads: a worker takes only those that its own faults raise. */
static bool start_quiet(pthread_t *t, worker_arg *w) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t quiet, before;
    sigfillset(&quiet);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&quiet, faults[i]);
    pthread_sigmask(SIG_BLOCK, &quiet, &before); /* the new thread inherits it */
    bool ok = pthread_create(t, NULL, worker_main, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

int fa_pool_create(fa_pool **out, int n_thread, fa_error *err) {
    *out = NULL;
    if (n_thread < 1 || n_thread > FA_THREAD_MAX)
        return fa_fail(err, FFAI_EINVAL, "threads: %d is not between 1 and %d", n_thread, FA_THREAD_MAX);
    fa_pool *p = (fa_pool *)fa_aligned_calloc(64, sizeof *p);
    if (!p || !(p->thread = FA_NEWN(pthread_t, (size_t)n_thread))) goto nomem;
    p->n_thread = n_thread;
    double quota = fa_cgroup_quota("");
    if (n_thread <= fa_cpu_count() && (quota == 0 || n_thread <= quota)) {
        p->spin_barrier = SPIN_BARRIER;
        p->spin_idle = SPIN_IDLE;
    }
    for (int i = 1; i < n_thread; i++) {
        worker_arg *w = FA_NEW(worker_arg);
        if (!w) goto nomem;
        *w = (worker_arg){p, i};
        if (!start_quiet(&p->thread[i - 1], w)) {
            fa_free(w);
            fa_pool_free(p);
            return fa_fail(err, FFAI_ENOMEM, "threads: cannot start thread %d of %d", i + 1, n_thread);
        }
        p->n_started++;
    }
    *out = p;
    return 0;
nomem:
    fa_pool_free(p);
    return fa_fail(err, FFAI_ENOMEM, "no memory for %d threads", n_thread);
}

void fa_pool_free(fa_pool *p) {
    if (!p) return;
    p->quit = true;
    if (p->n_started) advance(&p->job);
    for (int i = 0; i < p->n_started; i++) pthread_join(p->thread[i], NULL);
    fa_free(p->thread);
    fa_free(p);
}

int fa_pool_size(const fa_pool *p) { return p->n_thread; }

/* ---- places ---- */

static bool keep(pthread_t t, const fa_cpu_set *on) {
#if defined(__linux__)
    return pthread_setaffinity_np(t, sizeof on->word, (const cpu_set_t *)on->word) == 0;
#else
    (void)t, (void)on;
    return false;
#endif
}

fa_pin fa_pool_pin(fa_pool *p, fa_pin pin) {
    fa_cpus c;
    if (pin == FA_PIN_OFF) return pin;
    fa_cpus_find(&c, "", NULL);
    if (pin == FA_PIN_AUTO && (c.n_fast == c.n_core || p->n_thread > c.n_fast)) return FA_PIN_OFF;
    bool ok = true;
    for (int i = 0; i < p->n_thread; i++) {
        fa_cpu_set on = {{0}};
        fa_cpu_add(&on, c.order[i % c.n_cpu]);
        if (pin == FA_PIN_AUTO) on = c.fast;
        if (i)
            ok = keep(p->thread[i - 1], &on) && ok;
        else if (pin == FA_PIN_ON) {
            p->caller_on = on;
            p->keep_caller = true;
        }
    }
    return ok ? pin : FA_PIN_OFF;
}
