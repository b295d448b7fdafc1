/* The processors of this machine that the process may use, and which of them threads that walk in step should have: one
 * per physical core of the fastest class, no more than the process's cgroup pays for. docs/threads.md. */
#ifndef FA_BASE_CPUS_H
#define FA_BASE_CPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FA_CPU_MAX = 4096, FA_THREAD_MAX = 1024 };

/* Of processors, or of memory nodes. */
typedef struct fa_cpu_set {
    uint64_t word[FA_CPU_MAX / 64];
} fa_cpu_set;

static inline bool fa_cpu_in(const fa_cpu_set *s, int i) { return s->word[i / 64] >> (i % 64) & 1; }
static inline void fa_cpu_add(fa_cpu_set *s, int i) { s->word[i / 64] |= UINT64_C(1) << (i % 64); }
int fa_cpu_size(const fa_cpu_set *s);

typedef struct fa_cpus {
    int n_cpu;       /* processors in the process's affinity mask; a cpuset is part of it */
    int n_core;      /* physical cores that these belong to */
    int n_fast;      /* of the cores, those of the fastest class; all of them where they are alike */
    int n_node;      /* memory nodes that hold memory and some of the processors, at least 1 */
    double quota;    /* processors' time that the cgroups allow, in processors; 0: as much as there is */
    int n_thread;    /* threads that pay: 1 to FA_THREAD_MAX */
    fa_cpu_set fast; /* the processors of the fast cores */
    /* All n_cpu processors in the order in which threads get them: one of each fast core, their siblings, the slow
     * cores; within each of these the nodes in turn. */
    uint16_t order[FA_CPU_MAX];
} fa_cpus;

/* root: put before every path of the system's files, "" but in tests; allowed: the affinity mask, NULL: the calling
 * thread's. What cannot be read or makes no sense counts as not there. */
void fa_cpus_find(fa_cpus *c, const char *root, const fa_cpu_set *allowed);

int fa_cpu_count(void);   /* processors that this process may use */
int fa_cpu_threads(void); /* n_thread of this machine */

/* Keeps the calling thread on these processors, and gives those that it was on (before may be NULL). */
bool fa_cpus_stay(const fa_cpu_set *on, fa_cpu_set *before);

/* ---- what the parts share ---- */

/* The text of a small file, NUL-terminated and cut at cap; false when there is none. */
bool fa_cpus_text(const char *root, const char *path, char *text, size_t cap);
/* A list as the kernel writes it, "0-3,8"; false when the text is none, or is empty. */
bool fa_cpus_list(fa_cpu_set *s, const char *text);
/* Processors that the cgroups of this process give it time for, 0: no limit. */
double fa_cgroup_quota(const char *root);

/* ---- memory nodes ---- */

/* Nodes that hold memory and processors of `allowed`. */
void fa_nodes_find(fa_cpu_set *nodes, const char *root, const fa_cpu_set *allowed);
/* On a machine of several nodes: pages of [p, p + bytes) that nobody has touched will lie on all of them in turn. */
void fa_nodes_spread(void *p, size_t bytes);
/* The same for what the calling thread touches first between the two; begin says whether there is something to end. */
bool fa_spread_begin(void);
void fa_spread_end(bool begun);

/* What these do, on given nodes; false when the system refuses, or a policy is in force already. */
bool fa_nodes_spread_on(const fa_cpu_set *nodes, void *p, size_t bytes);
bool fa_spread_begin_on(const fa_cpu_set *nodes);

#endif
