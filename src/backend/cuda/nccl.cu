/* NCCL, opened at run time: what sums over several GPUs will go through. Nothing uses it yet but the question whether
 * it is there, so that `ffai devices` tells before a machine is relied on. */
#include "backend/cuda/cu.h"

#include <dlfcn.h>
#include <stdio.h>

/* The version of the library that would be used, "2.27.7"; "" without one. Its number is 10000 major + 100 minor +
 * patch (before 2.9: 1000, 100). */
void cu_nccl_version(char *text, size_t size) {
#ifdef FA_CUDA_EMU
    void *lib = NULL;
#else
    void *lib = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!lib) lib = dlopen("libnccl.so", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
#endif
    /* ncclResult_t is an enum, 0: success */
    int (*version)(int *) = lib ? (int (*)(int *))dlsym(lib, "ncclGetVersion") : NULL;
    int v = 0;
    text[0] = 0;
    if (version && version(&v) == 0 && v > 0) {
        const int unit = v >= 10000 ? 10000 : 1000;
        snprintf(text, size, "%d.%d.%d", v / unit, v % unit / 100, v % 100);
    }
    if (lib) dlclose(lib);
}
