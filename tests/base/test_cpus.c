/* Which processors threads get, from made-up trees of sysfs, procfs and cgroups, whole ones and broken ones; places of
 * threads and of memory on this machine. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <ftw.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpus.h"
#include "base/pool.h"
#include "base/rng.h"

/* ---- a made-up machine ---- */

typedef struct tree {
    char root[64];
    fa_cpu_set allowed;
} tree;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f) {
    (void)st, (void)flag, (void)f;
    return remove(path);
}

static tree tree_new(int n_cpu) {
    tree t = {"/tmp/ffai-cpus-XXXXXX", {{0}}};
    assert_non_null(mkdtemp(t.root));
    for (int i = 0; i < n_cpu; i++) fa_cpu_add(&t.allowed, i);
    return t;
}

static void tree_end(const tree *t) { nftw(t->root, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* Writes a file with the folders above it. */
static void put_bytes(const tree *t, const char *path, const void *text, size_t n) {
    char full[512];
    snprintf(full, sizeof full, "%s%s", t->root, path);
    for (char *p = full + strlen(t->root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0777);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

static void put(const tree *t, const char *path, const char *text) { put_bytes(t, path, text, strlen(text)); }

static void put_siblings(const tree *t, int cpu, const char *list) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    put(t, path, list);
}

static void put_capacity(const tree *t, int cpu, const char *value) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpu_capacity", cpu);
    put(t, path, value);
}

/* Cores of two threads, as most desktops number them: i and i + n_core. */
static void put_smt(const tree *t, int n_core) {
    char list[32];
    for (int i = 0; i < 2 * n_core; i++) {
        snprintf(list, sizeof list, "%d,%d\n", i % n_core, i % n_core + n_core);
        put_siblings(t, i, list);
    }
}

static fa_cpus find(const tree *t) {
    fa_cpus c;
    fa_cpus_find(&c, t->root, &t->allowed);
    /* the order is a permutation of the allowed processors, whatever the files say */
    fa_cpu_set seen = {{0}};
    assert_int_equal(c.n_cpu, fa_cpu_size(&t->allowed));
    for (int i = 0; i < c.n_cpu; i++) {
        assert_true(fa_cpu_in(&t->allowed, c.order[i]));
        assert_false(fa_cpu_in(&seen, c.order[i]));
        fa_cpu_add(&seen, c.order[i]);
    }
    assert_in_range(c.n_core, 1, c.n_cpu);
    assert_in_range(c.n_fast, 1, c.n_core);
    assert_in_range(c.n_thread, 1, FA_THREAD_MAX);
    assert_true(c.n_node >= 1 && c.quota >= 0);
    return c;
}

#define assert_order(c, ...)                                                                                           \
    do {                                                                                                               \
        const uint16_t want[] = {__VA_ARGS__};                                                                         \
        for (size_t i_ = 0; i_ < sizeof want / sizeof *want; i_++) assert_int_equal((c).order[i_], want[i_]);          \
    } while (0)

/* ---- cores ---- */

static void test_plain(void **state) {
    (void)state;
    tree t = tree_new(6); /* no files at all: every processor is a core */
    fa_cpus c = find(&t);
    assert_int_equal(c.n_core, 6);
    assert_int_equal(c.n_fast, 6);
    assert_int_equal(c.n_thread, 6);
    assert_int_equal(c.n_node, 1);
    assert_true(c.quota == 0);
    tree_end(&t);
}

static void test_smt(void **state) {
    (void)state;
    tree t = tree_new(16);
    put_smt(&t, 8);
    fa_cpus c = find(&t);
    assert_int_equal(c.n_core, 8);
    assert_int_equal(c.n_thread, 8);
    assert_order(c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    /* a cpuset, or taskset: two cores with both threads, one with its second only */
    memset(&t.allowed, 0, sizeof t.allowed);
    fa_cpu_add(&t.allowed, 1), fa_cpu_add(&t.allowed, 9), fa_cpu_add(&t.allowed, 2), fa_cpu_add(&t.allowed, 10);
    fa_cpu_add(&t.allowed, 15);
    c = find(&t);
    assert_int_equal(c.n_core, 3);
    assert_int_equal(c.n_thread, 3);
    assert_order(c, 1, 2, 15, 9, 10);
    tree_end(&t);
}

/* Six fast cores of two threads, eight slow ones: Intel's hybrid processors. */
static void test_hybrid(void **state) {
    (void)state;
    char list[32];
    tree t = tree_new(20);
    for (int i = 0; i < 20; i++) {
        snprintf(list, sizeof list, i < 12 ? "%d-%d\n" : "%d\n", i < 12 ? i / 2 * 2 : i, i / 2 * 2 + 1);
        put_siblings(&t, i, list);
    }
    put(&t, "/sys/devices/cpu_core/cpus", "0-11\n");
    put(&t, "/sys/devices/cpu_atom/cpus", "12-19\n");
    fa_cpus c = find(&t);
    assert_int_equal(c.n_core, 14);
    assert_int_equal(c.n_fast, 6);
    assert_int_equal(c.n_thread, 6);
    assert_int_equal(fa_cpu_size(&c.fast), 12);
    assert_order(c, 0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11, 12, 13);
    /* kept to the slow ones by taskset: then these are what there is */
    for (int i = 0; i < 12; i++) t.allowed.word[0] &= ~(UINT64_C(1) << i);
    c = find(&t);
    assert_int_equal(c.n_fast, 8);
    assert_int_equal(c.n_thread, 8);
    tree_end(&t);
}

static void test_capacity(void **state) {
    static const char *const phone[] = {"250", "250", "250", "250", "870", "870", "870", "1024\n"};
    (void)state;
    tree t = tree_new(8); /* four little cores, three big ones, a prime one: arm */
    for (int i = 0; i < 8; i++) put_capacity(&t, i, phone[i]);
    fa_cpus c = find(&t);
    assert_int_equal(c.n_fast, 4);
    assert_order(c, 4, 5, 6, 7, 0, 1, 2, 3);
    put_capacity(&t, 6, "-3"); /* one that makes no sense: nothing is known */
    assert_int_equal(find(&t).n_fast, 8);
    put_capacity(&t, 6, "99999999999999999999");
    assert_int_equal(find(&t).n_fast, 8);
    put_capacity(&t, 6, "0");
    assert_int_equal(find(&t).n_fast, 8);
    tree_end(&t);
}

/* Two nodes, each of four cores of two threads, numbered as servers do. */
static void put_server(const tree *t) {
    put_smt(t, 8);
    put(t, "/sys/devices/system/node/online", "0-1\n");
    put(t, "/sys/devices/system/node/has_memory", "0-1\n");
    put(t, "/sys/devices/system/node/node0/cpulist", "0-3,8-11\n");
    put(t, "/sys/devices/system/node/node1/cpulist", "4-7,12-15\n");
}

static void test_nodes(void **state) {
    (void)state;
    tree t = tree_new(16);
    put_server(&t);
    fa_cpus c = find(&t);
    assert_int_equal(c.n_node, 2);
    assert_int_equal(c.n_thread, 8);
    assert_order(c, 0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13);
    /* a node of memory alone, and one of processors without memory */
    put(&t, "/sys/devices/system/node/online", "0-2\n");
    put(&t, "/sys/devices/system/node/node2/cpulist", "\n");
    put(&t, "/sys/devices/system/node/has_memory", "0,2\n");
    c = find(&t);
    assert_int_equal(c.n_node, 1);
    assert_order(c, 0, 4, 1, 5);
    /* numactl --cpunodebind=1 */
    t.allowed.word[0] = 0xf0f0;
    put(&t, "/sys/devices/system/node/has_memory", "0-1\n");
    c = find(&t);
    assert_int_equal(c.n_node, 1);
    assert_order(c, 4, 5, 6, 7, 12);
    tree_end(&t);
}

/* More processors than cpu_set_t has room for. */
static void test_large(void **state) {
    (void)state;
    tree t = tree_new(2048);
    put(&t, "/sys/devices/system/node/online", "0-1\n");
    put(&t, "/sys/devices/system/node/node0/cpulist", "0-1023\n");
    put(&t, "/sys/devices/system/node/node1/cpulist", "1024-2047\n");
    fa_cpus c = find(&t);
    assert_int_equal(c.n_core, 2048);
    assert_int_equal(c.n_thread, FA_THREAD_MAX);
    assert_order(c, 0, 1024, 1, 1025);
    tree_end(&t);
}

/* ---- cgroups ---- */

static const char v2_mount[] = "24 1 0:22 / /sys rw - sysfs sysfs rw\n30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - "
                               "cgroup2 cgroup2 rw,nsdelegate\n";

static double quota(const tree *t) { return find(t).quota; }

static void test_cgroup2(void **state) {
    (void)state;
    tree t = tree_new(8);
    put(&t, "/proc/self/mountinfo", v2_mount);
    put(&t, "/proc/self/cgroup", "0::/user.slice/app.scope\n");
    assert_true(quota(&t) == 0);
    put(&t, "/sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n");
    assert_true(quota(&t) == 0);
    put(&t, "/sys/fs/cgroup/user.slice/cpu.max", "350000 100000\n");
    assert_true(quota(&t) == 3.5);
    assert_int_equal(find(&t).n_thread, 3);
    put(&t, "/sys/fs/cgroup/user.slice/app.scope/cpu.max", "150000 100000\n");
    assert_true(quota(&t) == 1.5);
    assert_int_equal(find(&t).n_thread, 1);
    put(&t, "/sys/fs/cgroup/user.slice/app.scope/cpu.max", "20000 100000\n"); /* a fifth: one thread all the same */
    assert_int_equal(find(&t).n_thread, 1);
    put(&t, "/sys/fs/cgroup/user.slice/app.scope/cpu.max", "6400000 100000\n"); /* more than there is */
    put(&t, "/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
    assert_int_equal(find(&t).n_thread, 8);
    tree_end(&t);
}

/* Containers: the group is the top of what is mounted, with its own name (no namespace) or as "/". */
static void test_containers(void **state) {
    (void)state;
    tree t = tree_new(8);
    put(&t, "/sys/fs/cgroup/cpu.max", "150000 100000\n");
    put(&t, "/proc/self/cgroup", "0::/\n");
    put(&t, "/proc/self/mountinfo", v2_mount);
    assert_true(quota(&t) == 1.5);
    put(&t, "/proc/self/cgroup", "0::/docker/abc\n");
    put(&t, "/proc/self/mountinfo", "30 24 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    assert_true(quota(&t) == 1.5);
    put(&t, "/proc/self/cgroup", "0::/../other\n"); /* outside of the namespace's top */
    put(&t, "/proc/self/mountinfo", v2_mount);
    assert_true(quota(&t) == 1.5);
    put(&t, "/proc/self/cgroup", "0::/docker/abcdef\n"); /* a name that only begins alike */
    put(&t, "/proc/self/mountinfo", "30 24 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    put(&t, "/sys/fs/cgroup/def/cpu.max", "100000 100000\n");
    assert_true(quota(&t) == 1.5);
    put(&t, "/proc/self/mountinfo",
        "30 24 0:26 / /mnt/my\\040groups ro - cgroup2 cgroup rw\n"); /* a blank in the name */
    put(&t, "/mnt/my groups/docker/cpu.max", "250000 100000\n");
    assert_true(quota(&t) == 2.5);
    tree_end(&t);
}

static void test_cgroup1(void **state) {
    (void)state;
    tree t = tree_new(8);
    put(&t, "/proc/self/cgroup", "11:cpuset:/x\n4:cpuacct,cpu:/a/b\n1:name=systemd:/\n0::/\n");
    put(&t, "/proc/self/mountinfo",
        "31 30 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        "32 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    assert_true(quota(&t) == 0);
    put(&t, "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n");
    put(&t, "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
    put(&t, "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "125000\n");
    assert_true(quota(&t) == 0); /* no period */
    put(&t, "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "50000\n");
    assert_true(quota(&t) == 2.5);
    put(&t, "/sys/fs/cgroup/unified/cpu.max", "200000 100000\n"); /* both at once: the lesser */
    assert_true(quota(&t) == 2);
    tree_end(&t);
}

/* ---- nonsense ---- */

static void test_lists(void **state) {
    static const char *const wrong[] = {"",     "\n",  "a",   "1-",   "-1",          "3-1",
                                        "1,,2", "1;2", "1 2", "0-3,", "99999999999", "0x3"};
    fa_cpu_set s;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_false(fa_cpus_list(&s, wrong[i]));
    assert_true(fa_cpus_list(&s, "0-2,5,4095-999999\n"));
    assert_int_equal(fa_cpu_size(&s), 5); /* what we have no room for is left out */
    assert_true(fa_cpu_in(&s, 4095) && fa_cpu_in(&s, 5) && !fa_cpu_in(&s, 3));
}

static const char *const file[] = {"/proc/self/cgroup",
                                   "/proc/self/mountinfo",
                                   "/sys/fs/cgroup/cpu.max",
                                   "/sys/fs/cgroup/a/cpu.max",
                                   "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
                                   "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
                                   "/sys/devices/cpu_core/cpus",
                                   "/sys/devices/system/cpu/cpu0/cpu_capacity",
                                   "/sys/devices/system/cpu/cpu1/topology/core_cpus_list",
                                   "/sys/devices/system/cpu/cpu2/topology/thread_siblings_list",
                                   "/sys/devices/system/node/online",
                                   "/sys/devices/system/node/has_memory",
                                   "/sys/devices/system/node/node0/cpulist",
                                   "/sys/devices/system/node/node1/cpulist"};

/* Files that hold nonsense, one at a time and in twos, over a tree that is otherwise whole: find() checks the result.
 */
static void test_broken(void **state) {
    static const char *const bad[] = {"",
                                      "\n",
                                      "-1",
                                      "-100000 100000",
                                      "1e300 1e-300",
                                      "nan nan",
                                      "inf 100000",
                                      "0 0",
                                      "100000 0",
                                      "max",
                                      "max max",
                                      "18446744073709551616",
                                      "0-4095",
                                      "0-99999999999999999999",
                                      ",",
                                      "::",
                                      "0::",
                                      "0:::/../..",
                                      "0::x",
                                      "1:cpu:/",
                                      " - cgroup2 c rw",
                                      "a b c d e - cgroup2 c rw",
                                      "1 2 3 / \\777\\0 - cgroup c cpu"};
    const size_t n_bad = sizeof bad / sizeof *bad, n_file = sizeof file / sizeof *file;
    (void)state;
    tree t = tree_new(8);
    put_server(&t);
    put(&t, "/proc/self/cgroup", "2:cpu:/\n0::/a\n");
    put(&t, "/proc/self/mountinfo", v2_mount);
    for (size_t i = 0; i < n_file; i++)
        for (size_t k = 0; k < n_bad; k++) {
            put(&t, file[i], bad[k]);
            put(&t, file[(i + k) % n_file], bad[(3 * k + i) % n_bad]);
            fa_cpus c = find(&t);
            assert_in_range(c.n_thread, 1, 8);
        }
    tree_end(&t);
}

/* The same with random bytes, among them long lines without an end. */
static void test_noise(void **state) {
    static const char alphabet[] = "0123456789-,:/ .\nmax cgroup2 cpu \\0";
    enum { MOST = 40000 };
    (void)state;
    tree t = tree_new(16);
    char *text = malloc(MOST);
    uint64_t at = 0;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
            size_t n = fa_rng_at(7, at++) % (round % 10 ? 60 : MOST);
            for (size_t k = 0; k < n; k++) {
                uint64_t r = fa_rng_at(7, at++);
                text[k] = round % 4 ? alphabet[r % (sizeof alphabet - 1)] : (char)r;
            }
            put_bytes(&t, file[i], text, n);
        }
        find(&t);
    }
    free(text);
    tree_end(&t);
}

/* ---- this machine ---- */

static void test_here(void **state) {
    fa_cpus c;
    (void)state;
    fa_cpus_find(&c, "", NULL);
    assert_int_equal(c.n_cpu, fa_cpu_count());
    assert_int_equal(c.n_thread, fa_cpu_threads());
    assert_in_range(c.n_thread, 1, c.n_cpu);
}

typedef struct seen {
    int n[8]; /* processors that each thread may run on, during a job */
    int cpu[8];
} seen;

static void look(void *arg, int ith, int n_thread) {
    cpu_set_t s;
    (void)n_thread;
    if (sched_getaffinity(0, sizeof s, &s)) return;
    ((seen *)arg)->n[ith] = CPU_COUNT(&s);
    ((seen *)arg)->cpu[ith] = sched_getcpu();
}

static void test_pin(void **state) {
    enum { N = 3 };
    fa_cpus c;
    fa_pool *p;
    fa_error err;
    cpu_set_t before, after;
    (void)state;
    fa_cpus_find(&c, "", NULL);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(fa_pool_create(&p, N, &err), 0);
    assert_int_equal(fa_pool_pin(p, FA_PIN_OFF), FA_PIN_OFF);
    seen s = {0};
    fa_pool_run(p, look, &s);
    for (int i = 0; i < N; i++) assert_int_equal(s.n[i], c.n_cpu);
    if (fa_pool_pin(p, FA_PIN_ON) == FA_PIN_ON) /* a sandbox may refuse */
        for (int round = 0; round < 3; round++) {
            fa_pool_run(p, look, &s);
            for (int i = 0; i < N; i++) {
                assert_int_equal(s.n[i], 1);
                assert_int_equal(s.cpu[i], c.order[i % c.n_cpu]);
            }
            assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
            assert_true(CPU_EQUAL(&before, &after)); /* the caller has its own places back */
        }
    fa_pool_free(p);
}

static int mode_at(void *p) {
    int mode = -1;
    return syscall(SYS_get_mempolicy, &mode, NULL, 0, p, 2 /* MPOL_F_ADDR */) ? -1 : mode;
}

static int mode_of_thread(void) {
    int mode = -1;
    return syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) ? -1 : mode;
}

/* On one node there is nothing to do; the calls are made all the same, on that node. */
static void test_spread(void **state) {
    const size_t bytes = 1 << 20;
    fa_cpu_set nodes;
    (void)state;
    fa_nodes_find(&nodes, "", NULL);
    uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    fa_nodes_spread(p + 1, 0);                         /* no whole page: nothing */
    if (mode_at(p) != 0 || fa_cpu_size(&nodes) == 0) { /* no such calls here, or a policy in force */
        munmap(p, bytes);
        skip();
    }
    if (fa_nodes_spread_on(&nodes, p + 100, bytes - 100)) {
        assert_int_equal(mode_at(p), 0); /* the first page is not ours alone */
        assert_int_equal(mode_at(p + 8192), 3);
        p[8192] = 1;
    }
    if (fa_spread_begin_on(&nodes)) {
        assert_int_equal(mode_of_thread(), 3);
        assert_false(fa_spread_begin_on(&nodes));
        fa_spread_end(true);
        assert_int_equal(mode_of_thread(), 0);
    }
    munmap(p, bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),    cmocka_unit_test(test_smt),        cmocka_unit_test(test_hybrid),
        cmocka_unit_test(test_capacity), cmocka_unit_test(test_nodes),      cmocka_unit_test(test_large),
        cmocka_unit_test(test_cgroup2),  cmocka_unit_test(test_containers), cmocka_unit_test(test_cgroup1),
        cmocka_unit_test(test_lists),    cmocka_unit_test(test_broken),     cmocka_unit_test(test_noise),
        cmocka_unit_test(test_here),     cmocka_unit_test(test_pin),        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
