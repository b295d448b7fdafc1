/* The GPU as a device: what the module exports, opening, memory, plain copies, and which errors a device survives.
 *
 * One stream per device object carries its copies and the steps of its backends, so that all of it is in order;
 * upload.cu has streams of its own. Every entry makes the device current for its thread (threads may use different
 * devices) and fails at once when the device is lost: after a fault in a kernel the CUDA context of the process answers
 * every call with the same error, and the first message is the one that tells what happened. */
#include "backend/cuda/cu.h"

extern "C" {
#include "base/alloc.h"
}
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* ---- errors ---- */

/* Errors after which the context is of no use. */
static bool is_fatal(cudaError_t rc) {
    switch (rc) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown: return true;
    default: return false;
    }
}

int cu_check(cu_device *dev, cudaError_t rc, const char *what, fa_error *err) {
    if (rc == cudaSuccess) return 0;
    cudaGetLastError(); /* or a later look at it would report this one again */
    if (dev->lost.code) {
        if (err) *err = dev->lost;
        return dev->lost.code;
    }
    if (is_fatal(rc)) {
        fa_fail(&dev->lost, FFAI_EINTERNAL, "%s: %s: %s (%s); this process cannot use the GPU any more", dev->name,
                what, cudaGetErrorString(rc), cudaGetErrorName(rc));
        if (err) *err = dev->lost;
        return dev->lost.code;
    }
    int code = rc == cudaErrorMemoryAllocation ? FFAI_ENOMEM : FFAI_EINTERNAL;
    return fa_fail(err, code, "%s: %s: %s (%s)", dev->name, what, cudaGetErrorString(rc), cudaGetErrorName(rc));
}

int cu_enter(cu_device *dev, fa_error *err) {
    if (dev->lost.code) {
        if (err) *err = dev->lost;
        return dev->lost.code;
    }
    return cu_check(dev, cudaSetDevice(dev->index), "making it the current device", err);
}

bool cu_injected(cu_device *dev, int what) { return dev->inject[what] > 0 && --dev->inject[what] == 0; }

static void device_inject(fa_device *d, int what, long n) {
    if (what == FA_INJECT_HEAP)
        fa_alloc_fail_at(n);
    else if (what >= 0 && what < FA_INJECT_COUNT)
        ((cu_device *)d)->inject[what] = n;
}

/* ---- memory ---- */

static int wait_all(cu_device *dev, const char *what, fa_error *err) {
    return cu_check(dev, cudaStreamSynchronize(dev->stream), what, err);
}

static int device_memory(fa_device *d, int64_t *total, int64_t *avail, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    size_t t = 0, a = 0;
    int rc = cu_enter(dev, err);
    if (!rc) rc = cu_check(dev, cudaMemGetInfo(&a, &t), "asking for its free memory", err);
    *total = (int64_t)t;
    *avail = (int64_t)a;
    return rc;
}

static void *device_alloc(fa_device *d, size_t bytes, const char *what, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    void *p = NULL;
    if (cu_enter(dev, err)) return NULL;
    if (!what) what = "a buffer";
    cudaError_t rc = cudaErrorMemoryAllocation;
    if (!cu_injected(dev, FA_INJECT_ALLOC)) rc = cudaMalloc(&p, bytes ? bytes : 1);
    if (rc == cudaSuccess) return p;
    if (rc != cudaErrorMemoryAllocation) {
        cu_check(dev, rc, what, err);
        return NULL;
    }
    cudaGetLastError();
    int64_t total, avail;
    if (device_memory(d, &total, &avail, err)) return NULL;
    fa_fail(err, FFAI_ENOMEM, "%s: no memory for %s: %zu bytes (%.2f GiB) wanted, %lld bytes (%.2f GiB) free",
            dev->name, what, bytes, (double)bytes / (1 << 30), (long long)avail, (double)avail / (1 << 30));
    return NULL;
}

static void device_release(fa_device *d, void *p) {
    cu_device *dev = (cu_device *)d;
    if (!p || cu_enter(dev, NULL) || wait_all(dev, "waiting for its work", NULL)) return;
    cu_check(dev, cudaFree(p), "giving memory back", NULL);
}

static int device_read(fa_device *d, void *host, const void *p, size_t bytes, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    int rc = cu_enter(dev, err);
    if (!rc) rc = cu_check(dev, cudaMemcpyAsync(host, p, bytes, cudaMemcpyDeviceToHost, dev->stream), "a read", err);
    return rc ? rc : wait_all(dev, "a read", err);
}

static int device_write(fa_device *d, void *p, const void *host, size_t bytes, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    int rc = cu_enter(dev, err);
    if (!rc) rc = cu_check(dev, cudaMemcpyAsync(p, host, bytes, cudaMemcpyHostToDevice, dev->stream), "a write", err);
    return rc ? rc : wait_all(dev, "a write", err);
}

static int device_fill(fa_device *d, void *p, int byte, size_t bytes, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    int rc = cu_enter(dev, err);
    if (!rc) rc = cu_check(dev, cudaMemsetAsync(p, byte, bytes, dev->stream), "a fill", err);
    return rc ? rc : wait_all(dev, "a fill", err);
}

/* It only begins; whatever comes next on the device is behind it. */
static int device_synth(fa_device *d, const fa_weight *w, uint64_t seed, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    int rc = cu_enter(dev, err);
    if (!rc) rc = cu_synth(dev->stream, w, seed, err);
    return rc ? rc : cu_check(dev, cudaGetLastError(), "making random weights", err);
}

static int device_rates(fa_device *d, fa_device_rates *out, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    int rc = cu_enter(dev, err);
    return rc ? rc : cu_rates(dev, out, err);
}

/* ---- opening ---- */

#ifndef __CUDA_ARCH_LIST__
#define __CUDA_ARCH_LIST__ 900 /* emulation */
#endif

static __global__ void probe_kernel() {}

/* "sm_80 sm_90": what this module has kernels for. */
static void arch_list(char *text, size_t size) {
    static const int archs[] = {__CUDA_ARCH_LIST__};
    size_t at = 0;
    text[0] = 0;
    for (size_t i = 0; i < sizeof archs / sizeof *archs && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%ssm_%d", i ? " " : "", archs[i] / 10);
}

/* The driver's own version, "580.95.05", from the kernel or, where a container hides that, from the management library;
 * "" when neither knows. */
static void driver_text(char *text, size_t size) {
    FILE *f = fopen("/sys/module/nvidia/version", "r");
    text[0] = 0;
    if (f) {
        if (!fgets(text, (int)size, f)) text[0] = 0;
        text[strcspn(text, "\r\n")] = 0;
        fclose(f);
    }
    void *lib = text[0] ? NULL : dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib) return;
    int (*init)(void) = (int (*)(void))dlsym(lib, "nvmlInit_v2");
    int (*version)(char *, unsigned) = (int (*)(char *, unsigned))dlsym(lib, "nvmlSystemGetDriverVersion");
    int (*stop)(void) = (int (*)(void))dlsym(lib, "nvmlShutdown");
    if (init && version && stop && init() == 0) {
        if (version(text, (unsigned)size) != 0) text[0] = 0;
        stop();
    }
    dlclose(lib);
}

/* Why there is no device, given the answer to the question how many there are. */
static int no_device(cudaError_t rc, fa_error *err) {
    int driver = 0, runtime = 0;
    char own[48];
    cudaGetLastError();
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return fa_fail(err, FFAI_ENOTSUP, "cuda: this machine has no NVIDIA driver (libcuda.so.1 cannot be loaded)");
    if (rc == cudaErrorInsufficientDriver) {
        driver_text(own, sizeof own);
        return fa_fail(
            err, FFAI_ENOTSUP,
            "cuda: the NVIDIA driver %s is too old: it supports CUDA %d.%d, this build needs CUDA %d.%d or newer", own,
            driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (rc == cudaSuccess || rc == cudaErrorNoDevice)
        return fa_fail(err, FFAI_ENOTSUP, "cuda: this machine has no NVIDIA GPU that the process may use");
    return fa_fail(err, FFAI_ENOTSUP, "cuda: %s (%s)", cudaGetErrorString(rc), cudaGetErrorName(rc));
}

static int module_count(fa_error *err) {
    int n = 0;
    cudaError_t rc = cudaGetDeviceCount(&n);
    return rc == cudaSuccess && n > 0 ? n : no_device(rc, err);
}

static int check_index(int index, fa_error *err) {
    int n = module_count(err);
    if (n < 0) return n;
    if (index >= 0 && index < n) return 0;
    return fa_fail(err, FFAI_EINVAL, "cuda:%d: there is no such GPU: this machine has %d, the first is cuda:0", index,
                   n);
}

static int module_facts(int index, fa_device_facts *out, fa_error *err) {
    memset(out, 0, sizeof *out);
    int rc = check_index(index, err), driver = 0;
    if (rc) return rc;
    cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, index);
    if (e != cudaSuccess) return fa_fail(err, FFAI_EINTERNAL, "cuda:%d: %s", index, cudaGetErrorString(e));
    snprintf(out->model, sizeof out->model, "%.*s", (int)sizeof out->model - 1, p.name);
    snprintf(out->arch, sizeof out->arch, "sm_%d%d", p.major, p.minor);
    out->n_unit = p.multiProcessorCount;
    out->mem_bytes = (int64_t)p.totalGlobalMem;
    char own[32];
    driver_text(own, sizeof own);
    cudaDriverGetVersion(&driver);
    snprintf(out->driver, sizeof out->driver, own[0] ? "%s (CUDA %d.%d)" : "%sCUDA %d.%d", own, driver / 1000,
             driver % 1000 / 10);
    cu_blas_version(out->cublaslt, sizeof out->cublaslt);
    cu_nccl_version(out->nccl, sizeof out->nccl);
    /* a GPU that another process holds for itself has no answer to this: unknown */
    size_t total = 0, avail = 0;
    if (cudaSetDevice(index) == cudaSuccess && cudaMemGetInfo(&avail, &total) == cudaSuccess)
        out->mem_free_bytes = (int64_t)avail;
    cudaGetLastError();
    return 0;
}

static int check_arch(cu_device *dev, const cudaDeviceProp *p, fa_error *err) {
    if (dev->arch < 80)
        return fa_fail(err, FFAI_ENOTSUP, "%s: %s has compute capability %d.%d, 8.0 or newer is needed", dev->name,
                       p->name, p->major, p->minor);
    cudaFuncAttributes a;
    cudaError_t rc = cudaFuncGetAttributes(&a, (const void *)probe_kernel);
    if (rc == cudaErrorNoKernelImageForDevice || rc == cudaErrorInvalidDeviceFunction) {
        char have[128];
        cudaGetLastError();
        arch_list(have, sizeof have);
        return fa_fail(err, FFAI_ENOTSUP, "%s: this build has no kernels for %s (sm_%d), only for %s", dev->name,
                       p->name, dev->arch, have);
    }
    return cu_check(dev, rc, "looking for its kernels", err);
}

static int start(cu_device *dev, fa_error *err) {
    cudaDeviceProp p;
    int rc = cu_enter(dev, err);
    if (!rc) rc = cu_check(dev, cudaFree(NULL), "starting", err); /* makes the context */
    if (!rc) rc = cu_check(dev, cudaGetDeviceProperties(&p, dev->index), "asking what it is", err);
    if (rc) return rc;
    dev->n_sm = p.multiProcessorCount;
    dev->arch = p.major * 10 + p.minor;
    dev->smem_max = p.sharedMemPerBlockOptin;
    rc = check_arch(dev, &p, err);
    if (!rc) rc = cu_check(dev, cudaStreamCreateWithFlags(&dev->stream, cudaStreamNonBlocking), "making a stream", err);
    return rc;
}

static void device_free(fa_device *d) {
    cu_device *dev = (cu_device *)d;
    if (!dev) return;
    if (!cu_enter(dev, NULL)) {
        if (dev->stream) wait_all(dev, "waiting for its work", NULL);
        cu_upload_free(dev);
        if (dev->stream) cudaStreamDestroy(dev->stream);
        cudaGetLastError();
    } else {
        cu_upload_free(dev);
    }
    cu_vm_free(dev);
    fa_free(dev);
}

static int module_open(fa_device **out, int index, fa_error *err) {
    *out = NULL;
    int rc = check_index(index, err);
    if (rc) return rc;
    cu_device *dev = FA_NEW(cu_device);
    if (!dev) return fa_fail(err, FFAI_ENOMEM, "no memory for a device");
    dev->index = index;
    snprintf(dev->name, sizeof dev->name, "cuda:%d", index);
    fa_device *d = &dev->d;
    d->name = dev->name;
    d->alloc = device_alloc;
    d->release = device_release;
    d->memory = device_memory;
    d->read = device_read;
    d->write = device_write;
    d->fill = device_fill;
    d->upload = cu_upload;
    d->synth = device_synth;
    d->reserve = cu_reserve;
    d->commit = cu_commit;
    d->unreserve = cu_unreserve;
    d->backend = cu_backend_create;
    d->rates = device_rates;
    d->inject = device_inject;
    d->free = device_free;
    rc = start(dev, err);
    if (rc) {
        device_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

extern "C" __attribute__((visibility("default"))) const fa_module *fa_module_get(void) {
    static const fa_module m = {FA_MODULE_VERSION, (uint32_t)sizeof(fa_rec), module_count, module_facts, module_open};
    return &m;
}
