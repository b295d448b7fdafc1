/* The devices of this machine, as far as they can be described without using them; GPUs are what the CUDA module tells.
 */
#define _POSIX_C_SOURCE 200809L
#include "backend/cpu/kern.h"
#include "backend/registry.h"
#include "base/alloc.h"
#include "base/cpus.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The value of the first line "KEY <blanks>: VALUE" of a file under /proc; false when there is none. */
static bool proc_value(const char *path, const char *key, char *value, size_t cap) {
    char line[512];
    size_t n = strlen(key);
    bool found = false;
    FILE *f = fopen(path, "r");
    while (f && !found && fgets(line, sizeof line, f)) {
        const char *p = line + n;
        if (strncmp(line, key, n) != 0) continue;
        p += strspn(p, " \t");
        if (*p != ':') continue;
        p++;
        p += strspn(p, " \t");
        snprintf(value, cap, "%.*s", (int)strcspn(p, "\n"), p);
        found = *value != 0;
    }
    if (f) fclose(f);
    return found;
}

/* A value of /proc/meminfo, which counts in KiB; 0 when it is unknown. */
static int64_t mem_bytes(const char *key) {
    char text[64];
    long long kib;
    if (!proc_value("/proc/meminfo", key, text, sizeof text) || sscanf(text, "%lld", &kib) != 1) return 0;
    return kib > 0 && kib < INT64_MAX / 1024 ? kib * 1024 : 0;
}

static void cpu_model(char *name, size_t cap) {
    struct utsname u;
    if (proc_value("/proc/cpuinfo", "model name", name, cap)) return;
    snprintf(name, cap, "%s", uname(&u) == 0 ? u.machine : ""); /* arm kernels give no name */
}

static void describe_cores(ffai_device_info *info) {
    fa_cpus c;
    fa_cpus_find(&c, "", NULL);
    info->n_thread = c.n_cpu;
    info->n_core = c.n_core;
    info->n_fast_core = c.n_fast;
    info->n_node = c.n_node;
    info->cpu_limit = c.quota;
    info->n_default = c.n_thread;
}

static int describe_cpu(const char *cpu, ffai_device_info *info, ffai_error *err) {
    fa_kernels *k = FA_NEW(fa_kernels);
    int rc = k ? fa_kernels_init(k, cpu, err) : fa_fail(err, FFAI_ENOMEM, "no memory to describe the processor");
    if (!rc) {
        snprintf(info->name, sizeof info->name, "cpu");
        snprintf(info->isa, sizeof info->isa, "%s", k->isa);
        describe_cores(info);
        cpu_model(info->model, sizeof info->model);
        info->mem_bytes = mem_bytes("MemTotal");
        info->mem_free_bytes = mem_bytes("MemAvailable");
        if (!info->mem_bytes) { /* no /proc */
            long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
            if (pages > 0 && page > 0) info->mem_bytes = (int64_t)pages * page;
        }
    }
    fa_free(k);
    return rc ? rc : 1;
}

static int describe_gpu(size_t i, const char *path, ffai_device_info *info, ffai_error *err) {
    const fa_module *mod;
    fa_error none;
    fa_device_facts f;
    if (!err) err = &none;
    int n = fa_module_open(&mod, path, err) ? -1 : mod->count(err);
    if (n < 0 || i >= (size_t)n) return 0;
    int rc = mod->facts((int)i, &f, err);
    if (rc) return rc;
    snprintf(info->name, sizeof info->name, "cuda:%d", (int)i);
    memcpy(info->isa, f.arch, sizeof f.arch);
    memcpy(info->driver, f.driver, sizeof f.driver);
    memcpy(info->model, f.model, sizeof f.model);
    memcpy(info->cublaslt, f.cublaslt, sizeof f.cublaslt);
    memcpy(info->nccl, f.nccl, sizeof f.nccl);
    info->n_thread = f.n_unit;
    info->mem_bytes = f.mem_bytes;
    info->mem_free_bytes = f.mem_free_bytes;
    return 1;
}

int ffai_device_at(size_t i, const ffai_engine_opts *opts, ffai_device_info *info, ffai_error *err) {
    static const ffai_engine_opts none;
    if (!opts) opts = &none;
    memset(info, 0, sizeof *info);
    if (err) *err = (ffai_error){0};
    return i == 0 ? describe_cpu(opts->cpu, info, err) : describe_gpu(i - 1, opts->cuda_module, info, err);
}
