/* Address space of the device: reserved once, memory mapped into it as it is needed, so that addresses never move
 * (graphs hold them). The driver's functions are fetched through the runtime, so that nothing links to the driver's
 * library.
 *
 * A piece's handle is released as soon as it is mapped: the mapping keeps the memory, and unmapping gives it back. */
#include "backend/cuda/cu.h"

extern "C" {
#include "base/alloc.h"
}
#include <string.h>

typedef CUresult reserve_fn(CUdeviceptr *p, size_t bytes, size_t align, CUdeviceptr hint, unsigned long long flags);
typedef CUresult address_fn(CUdeviceptr p, size_t bytes);
typedef CUresult create_fn(CUmemGenericAllocationHandle *h, size_t bytes, const CUmemAllocationProp *prop,
                           unsigned long long flags);
typedef CUresult release_fn(CUmemGenericAllocationHandle h);
typedef CUresult map_fn(CUdeviceptr p, size_t bytes, size_t offset, CUmemGenericAllocationHandle h,
                        unsigned long long flags);
typedef CUresult tensor_fn(CUtensorMap *m, CUtensorMapDataType type, cuuint32_t rank, void *p, const cuuint64_t *dim,
                           const cuuint64_t *stride, const cuuint32_t *box, const cuuint32_t *step,
                           CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2,
                           CUtensorMapFloatOOBfill fill);
typedef CUresult access_fn(CUdeviceptr p, size_t bytes, const CUmemAccessDesc *desc, size_t n);

struct cu_vm {
    reserve_fn *reserve;
    address_fn *free_range, *unmap;
    create_fn *create;
    release_fn *release;
    map_fn *map;
    access_fn *access;
    tensor_fn *tensor; /* NULL: there is none */
};

enum { VM_VERSION = 12000, VM_LEAST = 64 << 20 };

static void *entry(const char *name) {
    void *f = NULL;
    cudaDriverEntryPointQueryResult found;
    cudaError_t rc = cudaGetDriverEntryPointByVersion(name, &f, VM_VERSION, cudaEnableDefault, &found);
    if (rc == cudaSuccess && found == cudaDriverEntryPointSuccess) return f;
    cudaGetLastError();
    return NULL;
}

static int vm_open(cu_device *dev, fa_error *err) {
    if (dev->vm) return 0;
    struct cu_vm *vm = FA_NEW(struct cu_vm);
    if (!vm) return fa_fail(err, FFAI_ENOMEM, "no memory for address space");
    vm->reserve = (reserve_fn *)entry("cuMemAddressReserve");
    vm->free_range = (address_fn *)entry("cuMemAddressFree");
    vm->unmap = (address_fn *)entry("cuMemUnmap");
    vm->create = (create_fn *)entry("cuMemCreate");
    vm->release = (release_fn *)entry("cuMemRelease");
    vm->map = (map_fn *)entry("cuMemMap");
    vm->access = (access_fn *)entry("cuMemSetAccess");
    vm->tensor = (tensor_fn *)entry("cuTensorMapEncodeTiled");
    if (!vm->reserve || !vm->free_range || !vm->unmap || !vm->create || !vm->release || !vm->map || !vm->access) {
        fa_free(vm);
        return fa_fail(err, FFAI_ENOTSUP, "%s: the driver has no virtual memory management, which activations need",
                       dev->name);
    }
    dev->vm = vm;
    return 0;
}

void cu_vm_free(cu_device *dev) {
    fa_free(dev->vm);
    dev->vm = NULL;
}

void *cu_reserve(fa_device *d, size_t *bytes, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    if (cu_enter(dev, err) || vm_open(dev, err)) return NULL;
    const size_t step = FA_ARENA_STEP;
    CUdeviceptr p = 0;
    CUresult rc = CUDA_ERROR_INVALID_VALUE;
    for (size_t n = (*bytes + step - 1) / step * step; n > 0; n = n / 2 / step * step) {
        rc = dev->vm->reserve(&p, n, step, 0, 0);
        if (rc == CUDA_SUCCESS) {
            *bytes = n;
            return (void *)(uintptr_t)p;
        }
        if (n <= VM_LEAST) break;
    }
    fa_fail(err, rc == CUDA_ERROR_NOT_SUPPORTED ? FFAI_ENOTSUP : FFAI_ENOMEM,
            "%s: cannot reserve address space for activations (driver error %d)", dev->name, (int)rc);
    return NULL;
}

/* One piece of memory at [p, p + bytes). */
static CUresult map_piece(cu_device *dev, CUdeviceptr p, size_t bytes) {
    CUmemAllocationProp prop;
    CUmemAccessDesc access;
    CUmemGenericAllocationHandle h = 0;
    memset(&prop, 0, sizeof prop);
    memset(&access, 0, sizeof access);
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = dev->index;
    access.location = prop.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    CUresult rc = dev->vm->create(&h, bytes, &prop, 0);
    if (rc != CUDA_SUCCESS) return rc;
    rc = dev->vm->map(p, bytes, 0, h, 0);
    dev->vm->release(h);
    if (rc != CUDA_SUCCESS) return rc;
    rc = dev->vm->access(p, bytes, &access, 1);
    if (rc != CUDA_SUCCESS) dev->vm->unmap(p, bytes);
    return rc;
}

int cu_commit(fa_device *d, void *base, size_t from, size_t to) {
    cu_device *dev = (cu_device *)d;
    if (from >= to) return 0;
    if (cu_enter(dev, NULL) || !dev->vm || from % FA_ARENA_STEP || to % FA_ARENA_STEP) return FFAI_EINVAL;
    if (cu_injected(dev, FA_INJECT_ALLOC)) return FFAI_ENOMEM;
    return map_piece(dev, (CUdeviceptr)(uintptr_t)base + from, to - from) == CUDA_SUCCESS ? 0 : FFAI_ENOMEM;
}

void cu_unreserve(fa_device *d, void *base, size_t bytes, size_t committed) {
    cu_device *dev = (cu_device *)d;
    if (!base || !dev->vm || cu_enter(dev, NULL)) return;
    if (cu_check(dev, cudaStreamSynchronize(dev->stream), "waiting for its work", NULL)) return;
    CUdeviceptr p = (CUdeviceptr)(uintptr_t)base;
    if (committed) dev->vm->unmap(p, committed); /* all pieces at once */
    dev->vm->free_range(p, bytes);
}

bool cu_tensor_map(cu_device *dev, CUtensorMap *m, const void *p, const int64_t dim[4], const int64_t stride[3],
                   const int box[4]) {
    if (vm_open(dev, NULL) || !dev->vm->tensor) return false;
    cuuint64_t n[4], bytes[3];
    cuuint32_t size[4], step[4];
    for (int i = 0; i < 4; i++) n[i] = (cuuint64_t)dim[i], size[i] = (cuuint32_t)box[i], step[i] = 1;
    for (int i = 0; i < 3; i++) bytes[i] = (cuuint64_t)stride[i];
    return dev->vm->tensor(m, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, (void *)(uintptr_t)p, n, bytes, size, step,
                           CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                           CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
