/* Memory on several nodes: weights and caches are read by all threads, so their pages lie on all nodes in turn. The
 * calls are made directly: libnuma would be a dependency for two of them. Constants: linux/mempolicy.h. */
#define _GNU_SOURCE
#include "base/cpus.h"

#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

enum { INTERLEAVE = 3 /* MPOL_INTERLEAVE */ };

#if defined(__linux__) && defined(SYS_mbind) && defined(SYS_set_mempolicy)

/* Who runs under a policy (numactl) wants that one. */
static bool has_policy(void) {
    int mode = 0;
    return syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) != 0 || mode != 0;
}

/* The kernel reads one bit less than it is told, and wants those that it does not know to be zero. */
static unsigned long span(const fa_cpu_set *nodes) {
    for (int i = FA_CPU_MAX - 1; i >= 0; i--)
        if (fa_cpu_in(nodes, i)) return (unsigned long)i + 2;
    return 0;
}

bool fa_nodes_spread_on(const fa_cpu_set *nodes, void *p, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)p + page - 1) / page * page, to = ((uintptr_t)p + bytes) / page * page;
    return to > from && !has_policy() &&
           syscall(SYS_mbind, from, to - from, INTERLEAVE, nodes->word, span(nodes), 0) == 0;
}

bool fa_spread_begin_on(const fa_cpu_set *nodes) {
    return !has_policy() && syscall(SYS_set_mempolicy, INTERLEAVE, nodes->word, span(nodes)) == 0;
}

void fa_spread_end(bool begun) {
    if (begun) syscall(SYS_set_mempolicy, 0, NULL, 0);
}

#else

bool fa_nodes_spread_on(const fa_cpu_set *nodes, void *p, size_t bytes) {
    (void)nodes, (void)p, (void)bytes;
    return false;
}

bool fa_spread_begin_on(const fa_cpu_set *nodes) {
    (void)nodes;
    return false;
}

void fa_spread_end(bool begun) { (void)begun; }

#endif

/* On one node, or where the system does not let us, memory lies where it always did. */
void fa_nodes_spread(void *p, size_t bytes) {
    fa_cpu_set nodes;
    fa_nodes_find(&nodes, "", NULL);
    if (fa_cpu_size(&nodes) > 1) (void)fa_nodes_spread_on(&nodes, p, bytes);
}

bool fa_spread_begin(void) {
    fa_cpu_set nodes;
    fa_nodes_find(&nodes, "", NULL);
    return fa_cpu_size(&nodes) > 1 && fa_spread_begin_on(&nodes);
}
