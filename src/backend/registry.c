/* Device names and the search for the CUDA module. */
#define _GNU_SOURCE
#include "backend/registry.h"

#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE "libffai_cuda.so"

enum { MAX_INDEX = 1 << 16 };

int fa_device_parse(fa_device_name *out, const char *text, fa_error *err) {
    *out = (fa_device_name){FA_ON_AUTO, 0};
    if (!text || strcmp(text, "auto") == 0) return 0;
    if (strcmp(text, "cpu") == 0) {
        out->kind = FA_ON_CPU;
        return 0;
    }
    out->kind = FA_ON_CUDA;
    if (strcmp(text, "cuda") == 0) return 0;
    const char *digits = strncmp(text, "cuda:", 5) == 0 ? text + 5 : "";
    size_t n = strspn(digits, "0123456789");
    if (n && n < 7 && !digits[n] && (out->index = atoi(digits)) < MAX_INDEX) return 0;
    return fa_fail(err, FFAI_EINVAL, "device: \"%s\" is not cpu, cuda, cuda:N or auto", text);
}

/* ---- the module ---- */

/* The folder of the file that this code was linked into. A program that was found through PATH knows only its bare
 * name: then it is what /proc says that runs. */
static bool own_folder(char dir[PATH_MAX]) {
    Dl_info self;
    char *slash;
    void *here;
    int (*fn)(fa_device_name *, const char *, fa_error *) = fa_device_parse;
    memcpy(&here, &fn, sizeof here);
    bool named = dladdr(here, &self) && self.dli_fname && strchr(self.dli_fname, '/');
    if (!realpath(named ? self.dli_fname : "/proc/self/exe", dir) || !(slash = strrchr(dir, '/'))) return false;
    *slash = 0;
    return true;
}

static bool try_file(char *file, const char *dir, const char *sub) {
    int n = snprintf(file, PATH_MAX, "%s%s/" MODULE, dir, sub);
    return n > 0 && n < PATH_MAX && access(file, F_OK) == 0;
}

/* lib/x86_64-linux-gnu and the like. */
static bool try_below(char *file, const char *dir, const char *sub) {
    char path[PATH_MAX];
    bool found = false;
    snprintf(path, sizeof path, "%s%s", dir, sub);
    DIR *d = opendir(path);
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        char name[PATH_MAX];
        snprintf(name, sizeof name, "%s/%s", sub, e->d_name);
        found = e->d_name[0] != '.' && try_file(file, dir, name);
    }
    if (d) closedir(d);
    return found;
}

static bool find_module(char file[PATH_MAX], char dir[PATH_MAX]) {
    if (!own_folder(dir)) {
        *dir = 0;
        return false;
    }
    return try_file(file, dir, "") || try_file(file, dir, "/../lib") || try_file(file, dir, "/../lib64") ||
           try_below(file, dir, "/../lib");
}

static int check_module(const fa_module **out, void *handle, const char *file, fa_error *err) {
    const fa_module *(*get)(void) = NULL;
    void *sym = dlsym(handle, "fa_module_get");
    if (sym) memcpy(&get, &sym, sizeof get); /* ISO C has no cast from an object to a function */
    const fa_module *m = get ? get() : NULL;
    if (!m) return fa_fail(err, FFAI_ENOTSUP, "cuda: %s is no module of ffai", file);
    if (m->version != FA_MODULE_VERSION || m->rec_bytes != sizeof(fa_rec))
        return fa_fail(
            err, FFAI_ENOTSUP,
            "cuda: %s belongs to another build of ffai: interface %u with records of %u bytes, this one is %d "
            "with %zu",
            file, m->version, m->rec_bytes, FA_MODULE_VERSION, sizeof(fa_rec));
    *out = m;
    return 0;
}

int fa_module_open(const fa_module **out, const char *path, fa_error *err) {
    char found[PATH_MAX], dir[PATH_MAX];
    const char *file = path;
    *out = NULL;
    *dir = 0;
    if (!file && find_module(found, dir)) file = found;
    bool anywhere = !file;
    if (anywhere) file = MODULE;
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) {
        const char *why = dlerror();
        if (!anywhere) return fa_fail(err, FFAI_ENOTSUP, "cuda: %s", why ? why : file);
        return fa_fail(err, FFAI_ENOTSUP,
                       "cuda: this build has no CUDA module: " MODULE " is not in %s, %s/../lib, %s/../lib/* or where "
                       "the system looks for libraries",
                       dir, dir, dir);
    }
    int rc = check_module(out, handle, file, err);
    dlclose(handle); /* RTLD_NODELETE: it stays */
    return rc;
}
