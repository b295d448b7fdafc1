/* Cores, their classes and nodes, from the files of sysfs; see cpus.h. */
#define _GNU_SOURCE
#include "base/cpus.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

/* A core of 3/5 of the fastest one's capacity is no slow one: phones and boards have a prime core beside big ones,
 * which share work well, and little ones of a third. */
enum {
    FAST_NUM = 3,
    FAST_DEN = 5,
    SMT_MAX = 8 /* threads of a core */,
    TEXT_MAX = 16384,
    NODE_MAX = 1024,
    NODE_KINDS = 64
};

int fa_cpu_size(const fa_cpu_set *s) {
    int n = 0;
    for (int i = 0; i < FA_CPU_MAX / 64; i++) n += __builtin_popcountll(s->word[i]);
    return n;
}

/* ---- reading ---- */

bool fa_cpus_text(const char *root, const char *path, char *text, size_t cap) {
    char full[1024];
    size_t n = 0;
    if ((size_t)snprintf(full, sizeof full, "%s%s", root, path) >= sizeof full) return false;
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    for (ssize_t got = 1; got > 0 && n + 1 < cap; n += got > 0 ? (size_t)got : 0) got = read(fd, text + n, cap - 1 - n);
    close(fd);
    text[n] = 0;
    return n > 0;
}

/* A number of at most six digits at *p, or -1. */
static int small_number(const char **p) {
    int v = 0, digits = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++)
        if (++digits > 6)
            return -1;
        else
            v = v * 10 + (**p - '0');
    return digits ? v : -1;
}

bool fa_cpus_list(fa_cpu_set *s, const char *text) {
    memset(s, 0, sizeof *s);
    for (const char *p = text;; p++) {
        int from = small_number(&p), to = from;
        if (*p == '-') {
            p++;
            to = small_number(&p);
        }
        if (from < 0 || to < from) return false;
        for (int i = from; i <= to && i < FA_CPU_MAX; i++) fa_cpu_add(s, i);
        if (*p != ',') return *p == '\n' || !*p;
    }
}

static bool read_list(fa_cpu_set *s, const char *root, const char *path) {
    char text[TEXT_MAX];
    return fa_cpus_text(root, path, text, sizeof text) && fa_cpus_list(s, text);
}

static int first_of(const fa_cpu_set *a, const fa_cpu_set *b) { /* of both; -1: none */
    for (int i = 0; i < FA_CPU_MAX / 64; i++)
        if (a->word[i] & b->word[i]) return i * 64 + __builtin_ctzll(a->word[i] & b->word[i]);
    return -1;
}

static void affinity(fa_cpu_set *s) {
    memset(s, 0, sizeof *s);
#if defined(__linux__)
    if (syscall(SYS_sched_getaffinity, 0, sizeof s->word, s->word) > 0 && fa_cpu_size(s) > 0) return;
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 0; i == 0 || (i < n && i < FA_CPU_MAX); i++) fa_cpu_add(s, i);
}

bool fa_cpus_stay(const fa_cpu_set *on, fa_cpu_set *before) {
#if defined(__linux__)
    if (before) affinity(before);
    return syscall(SYS_sched_setaffinity, 0, sizeof on->word, on->word) == 0;
#else
    (void)on, (void)before;
    return false;
#endif
}

/* ---- cores ---- */

typedef struct finder {
    const char *root;
    const fa_cpu_set *allowed;
    fa_cpu_set first; /* the first allowed processor of every core */
} finder;

/* The processors of a core, itself among them; what the files say is believed only if it could be a core. */
static void siblings_of(const finder *f, int cpu, fa_cpu_set *s) {
    static const char *const file[] = {"core_cpus_list", "thread_siblings_list"};
    char path[128];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, file[i]);
        if (read_list(s, f->root, path) && fa_cpu_in(s, cpu) && fa_cpu_size(s) <= SMT_MAX) return;
    }
    memset(s, 0, sizeof *s);
    fa_cpu_add(s, cpu);
}

/* Capacity of a processor against the machine's fastest, which has 1024; 0: unknown. */
static int capacity_of(const finder *f, int cpu) {
    char path[128], text[32];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpu_capacity", cpu);
    const char *p = text;
    int v = fa_cpus_text(f->root, path, text, sizeof text) ? small_number(&p) : 0;
    return v > 0 ? v : 0;
}

/* Which processors are fast: those that Intel's hybrid machines list, or those of much capacity (arm), or all. */
static void find_fast(const finder *f, fa_cpu_set *fast) {
    if (read_list(fast, f->root, "/sys/devices/cpu_core/cpus") && first_of(fast, f->allowed) >= 0) return;
    int most = 0, known = 0;
    int capacity[FA_CPU_MAX];
    for (int i = 0; i < FA_CPU_MAX; i++) {
        if (!fa_cpu_in(&f->first, i)) continue;
        if (!(capacity[i] = capacity_of(f, i))) break; /* one unknown: nothing is known */
        if (capacity[i] > most) most = capacity[i];
        known++;
    }
    *fast = *f->allowed;
    if (known < fa_cpu_size(&f->first)) return;
    memset(fast, 0, sizeof *fast);
    for (int i = 0; i < FA_CPU_MAX; i++)
        if (fa_cpu_in(&f->first, i) && capacity[i] * FAST_DEN >= most * FAST_NUM) fa_cpu_add(fast, i);
}

/* Goes over the cores: their number, those that are fast, and all processors of these. */
static void find_cores(finder *f, fa_cpus *c) {
    fa_cpu_set seen = {{0}}, fast, core;
    for (int i = 0; i < FA_CPU_MAX; i++) {
        if (!fa_cpu_in(f->allowed, i) || fa_cpu_in(&seen, i)) continue;
        siblings_of(f, i, &core);
        for (int k = 0; k < FA_CPU_MAX / 64; k++) seen.word[k] |= core.word[k];
        fa_cpu_add(&f->first, i);
        c->n_core++;
    }
    find_fast(f, &fast);
    for (int i = 0; i < FA_CPU_MAX; i++) {
        if (!fa_cpu_in(&f->first, i) || !fa_cpu_in(&fast, i)) continue;
        siblings_of(f, i, &core);
        for (int k = 0; k < FA_CPU_MAX / 64; k++) c->fast.word[k] |= core.word[k] & f->allowed->word[k];
        c->n_fast++;
    }
}

/* ---- nodes ---- */

static bool node_cpus(const char *root, int node, fa_cpu_set *s) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
    return read_list(s, root, path);
}

void fa_nodes_find(fa_cpu_set *nodes, const char *root, const fa_cpu_set *allowed) {
    fa_cpu_set online, memory, cpus, mine;
    memset(nodes, 0, sizeof *nodes);
    if (!allowed) affinity(&mine);
    if (!read_list(&online, root, "/sys/devices/system/node/online")) return;
    bool known = read_list(&memory, root, "/sys/devices/system/node/has_memory");
    for (int i = 0; i < NODE_MAX; i++)
        if (fa_cpu_in(&online, i) && (!known || fa_cpu_in(&memory, i)) && node_cpus(root, i, &cpus) &&
            first_of(&cpus, allowed ? allowed : &mine) >= 0)
            fa_cpu_add(nodes, i);
}

/* Which of the machine's nodes a processor belongs to, as 0, 1, ...; those of no node make one more. */
static int find_node_of(const finder *f, uint8_t node_of[FA_CPU_MAX]) {
    fa_cpu_set online, cpus;
    int n = 0;
    memset(node_of, NODE_KINDS, FA_CPU_MAX);
    if (read_list(&online, f->root, "/sys/devices/system/node/online"))
        for (int node = 0; node < NODE_MAX && n < NODE_KINDS; node++) {
            if (!fa_cpu_in(&online, node) || !node_cpus(f->root, node, &cpus)) continue;
            for (int i = 0; i < FA_CPU_MAX; i++)
                if (fa_cpu_in(&cpus, i)) node_of[i] = (uint8_t)n;
            n++;
        }
    for (int i = 0; i < FA_CPU_MAX; i++)
        if (node_of[i] == NODE_KINDS) node_of[i] = (uint8_t)n;
    return n + 1;
}

/* Appends the processors of `set` to the order, one of each node in turn. */
static void append_by_node(fa_cpus *c, int *n, const fa_cpu_set *set, const uint8_t *node_of, int n_node) {
    int next[NODE_KINDS + 1] = {0};
    for (bool some = true; some;) {
        some = false;
        for (int node = 0; node < n_node; node++) {
            int i = next[node];
            while (i < FA_CPU_MAX && !(fa_cpu_in(set, i) && node_of[i] == node)) i++;
            if (i < FA_CPU_MAX) c->order[(*n)++] = (uint16_t)i;
            some |= i < FA_CPU_MAX;
            next[node] = i < FA_CPU_MAX ? i + 1 : i;
        }
    }
}

static void find_order(const finder *f, fa_cpus *c) {
    fa_cpu_set part[3];
    uint8_t node_of[FA_CPU_MAX];
    int n = 0, n_node = find_node_of(f, node_of);
    for (int k = 0; k < FA_CPU_MAX / 64; k++) {
        part[0].word[k] = f->first.word[k] & c->fast.word[k];
        part[1].word[k] = c->fast.word[k] & ~f->first.word[k];
        part[2].word[k] = f->allowed->word[k] & ~c->fast.word[k];
    }
    for (int i = 0; i < 3; i++) append_by_node(c, &n, &part[i], node_of, n_node);
}

void fa_cpus_find(fa_cpus *c, const char *root, const fa_cpu_set *allowed) {
    fa_cpu_set mine, nodes;
    if (!allowed) affinity(&mine);
    finder f = {.root = root, .allowed = allowed ? allowed : &mine};
    memset(c, 0, sizeof *c);
    c->n_cpu = fa_cpu_size(f.allowed);
    find_cores(&f, c);
    find_order(&f, c);
    fa_nodes_find(&nodes, root, f.allowed);
    c->n_node = fa_cpu_size(&nodes) > 1 ? fa_cpu_size(&nodes) : 1;
    c->quota = fa_cgroup_quota(root);
    c->n_thread = c->n_fast < FA_THREAD_MAX ? c->n_fast : FA_THREAD_MAX;
    if (c->quota > 0 && c->quota < c->n_thread) c->n_thread = (int)c->quota;
    if (c->n_thread < 1) c->n_thread = 1;
}

int fa_cpu_count(void) {
    fa_cpu_set s;
    affinity(&s);
    return fa_cpu_size(&s);
}

int fa_cpu_threads(void) {
    fa_cpus c;
    fa_cpus_find(&c, "", NULL);
    return c.n_thread;
}
