/* The CUDA runtime API over host memory: allocations with guard pages, streams that keep their work until somebody
 * waits for it, graphs as lists of that work, and faults on request (emu_control). One lock serialises everything; it
 * is recursive because work is run from inside of API calls.
 *
 * Device memory is host memory with an unreadable page behind each allocation (rounded to `align` bytes) and copies
 * checked against what was allocated. FFAI_EMU holds settings, separated by commas: mem=BYTES[M|G], devices=N,
 * driver=V, sm=N, arch=N, seed=N (shuffled orders), sync=1 (run work at once), align=N (of allocations, 256; 16 finds
 * more overruns), and the faults of emu_control. FFAI_EMU_MEM is mem alone. */
#include "emu.h"
#include "emu_int.h"

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <vector>

typedef std::function<void()> work;

struct emu_graph {
    std::vector<work> nodes;
    std::thread::id by;
    cudaStreamCaptureMode mode;
    cudaStream_t origin;
    bool broken;
};
struct emu_graph_exec {
    std::shared_ptr<std::vector<work>> nodes;
};
struct emu_stream {
    std::deque<work> q;
    emu_graph *capture;
};
struct event_state {
    long recorded, done;
    double time;
    cudaStream_t stream;
    emu_graph *capture;
};
struct emu_event {
    std::shared_ptr<event_state> st;
};

namespace {
enum : size_t { PAGE = 4096 };
struct range {
    size_t bytes, map_bytes;
    uint8_t *map;
    bool device, registered;
};
struct setting {
    size_t mem = (size_t)8 << 30;
    long devices = 1, driver = 13000, sm = 4, arch = 90, seed = 0, sync = 0, align = 256;
    /* faults: 1 = the next one; 0 = none */
    long fail_launch = 0, fault_kernel = 0, fail_alloc = 0, fail_copy = 0;
};
struct global {
    std::recursive_mutex lock;
    setting set;
    std::map<uintptr_t, range> ranges;    /* by start */
    std::map<uintptr_t, size_t> reserved; /* address space */
    std::map<uintptr_t, std::pair<size_t, unsigned long long>> mapped;
    std::map<unsigned long long, std::pair<size_t, int>> handles; /* size, references */
    unsigned long long next_handle = 1;
    size_t used = 0;
    std::vector<cudaStream_t> streams;
    std::vector<emu_graph *> captures;
    cudaError_t sticky = cudaSuccess, last = cudaSuccess;
    long n_launch = 0, n_alloc = 0;

    global() {
        parse(getenv("FFAI_EMU"));
        if (const char *m = getenv("FFAI_EMU_MEM")) set_one("mem", m);
    }
    static long long number(const char *s) {
        char *end;
        const double v = strtod(s, &end);
        return (long long)(v * (*end == 'G' ? 1 << 30 : *end == 'M' ? 1 << 20 : *end == 'K' ? 1 << 10 : 1));
    }
    bool set_one(const std::string &k, const char *v) { return put(k, number(v)); }
    bool put(const std::string &k, long long v) {
        if (k == "mem") return set.mem = (size_t)v, true;
        const struct {
            const char *name;
            long *to;
        } all[] = {{"devices", &set.devices},
                   {"driver", &set.driver},
                   {"sm", &set.sm},
                   {"arch", &set.arch},
                   {"seed", &set.seed},
                   {"sync", &set.sync},
                   {"align", &set.align},
                   {"fail_launch", &set.fail_launch},
                   {"fault_kernel", &set.fault_kernel},
                   {"fail_alloc", &set.fail_alloc},
                   {"fail_copy", &set.fail_copy}};
        for (const auto &s : all)
            if (k == s.name) return *s.to = (long)v, true;
        return false;
    }
    void parse(const char *s) {
        while (s && *s) {
            const std::string one(s, strcspn(s, ","));
            const size_t eq = one.find('=');
            if (eq == std::string::npos || !set_one(one.substr(0, eq), one.c_str() + eq + 1))
                emu_die("FFAI_EMU: what is %s?", one.c_str());
            s += one.size();
            s += *s == ',';
        }
    }
};
global &g() {
    static global *const one = new global; /* lives as long as the process: streams may end late */
    return *one;
}
#define LOCK const std::lock_guard<std::recursive_mutex> locked(g().lock)

cudaError_t result(cudaError_t e) {
    if (e != cudaSuccess && e != cudaErrorNotReady) g().last = e;
    return e;
}
/* Is this the call that was asked to fail? */
bool hit(long *n) { return *n > 0 && --*n == 0; }
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/* ---- work ---- */
void drain(cudaStream_t s) {
    while (!s->q.empty()) {
        const work w = std::move(s->q.front());
        s->q.pop_front();
        if (g().sticky == cudaSuccess) w();
    }
}
void drain_all() {
    for (size_t i = 0; i < g().streams.size(); i++) drain(g().streams[i]);
}
bool own_stream(cudaStream_t s) { return (uintptr_t)s > 2; }
cudaError_t put(cudaStream_t s, work w) {
    if (g().sticky != cudaSuccess) return result(g().sticky);
    if (!own_stream(s)) {
        drain_all();
        w();
        return result(g().sticky);
    }
    if (s->capture) {
        s->capture->nodes.push_back(std::move(w));
        return cudaSuccess;
    }
    s->q.push_back(std::move(w));
    if (g().set.sync || s->q.size() > 8192) drain(s);
    return cudaSuccess;
}
/* Calls that a capture forbids. */
bool forbidden() {
    for (emu_graph *c : g().captures)
        if (c->mode == cudaStreamCaptureModeGlobal ||
            (c->mode == cudaStreamCaptureModeThreadLocal && c->by == std::this_thread::get_id()))
            return c->broken = true;
    return false;
}
cudaError_t wait_all() {
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    drain_all();
    return result(g().sticky);
}

/* ---- memory ---- */
const range *find(const void *p, uintptr_t *start) {
    auto it = g().ranges.upper_bound((uintptr_t)p);
    if (it == g().ranges.begin()) return nullptr;
    --it;
    if ((uintptr_t)p >= it->first + it->second.bytes) return nullptr;
    *start = it->first;
    return &it->second;
}
bool pinned(const void *p) {
    uintptr_t at;
    const range *r = find(p, &at);
    return r && !r->device;
}
bool on_device(const void *p, size_t n) {
    uintptr_t at;
    const range *r = find(p, &at);
    if (r) return r->device && (uintptr_t)p + n <= at + r->bytes;
    for (uintptr_t a = (uintptr_t)p, end = a + n; a < end;) { /* mapped pieces side by side */
        auto it = g().mapped.upper_bound(a);
        if (it == g().mapped.begin() || (--it)->first + it->second.first <= a) return false;
        a = it->first + it->second.first;
    }
    return true;
}
void need_device(const char *what, const void *p, size_t n) {
    if (n && !on_device(p, n)) emu_die("%s: %zu bytes at %p are not device memory", what, n, p);
}
void need_host(const char *what, const void *p, size_t n) {
    uintptr_t at;
    const range *r = find(p, &at);
    if (n && r && (r->device || (uintptr_t)p + n > at + r->bytes))
        emu_die("%s: %zu bytes at %p are not host memory", what, n, p);
}
uint8_t *map_guarded(size_t bytes, range *r) {
    const size_t align = (size_t)g().set.align, room = (bytes + align - 1) / align * align;
    r->bytes = bytes, r->map_bytes = (room + PAGE - 1) / PAGE * PAGE + PAGE;
    void *p = mmap(nullptr, r->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    r->map = (uint8_t *)p;
    uint8_t *end = r->map + r->map_bytes - PAGE;
    mprotect(end, PAGE, PROT_NONE);
    return end - room;
}
cudaError_t drop(void *p, bool device) {
    if (!p) return cudaSuccess;
    auto it = g().ranges.find((uintptr_t)p);
    if (it == g().ranges.end() || it->second.device != device || it->second.registered)
        return result(cudaErrorInvalidValue);
    if (device) g().used -= it->second.bytes;
    munmap(it->second.map, it->second.map_bytes);
    g().ranges.erase(it);
    return result(g().sticky);
}

cudaError_t copy(void *to, size_t tp, const void *from, size_t fp, size_t w, size_t h, cudaMemcpyKind k, cudaStream_t s,
                 bool block) {
    if (!w || !h) return result(g().sticky);
    if (h > 1 && (tp < w || fp < w)) return result(cudaErrorInvalidValue);
    if (hit(&g().set.fail_copy)) return result(cudaErrorUnknown);
    const size_t tn = tp * (h - 1) + w, fn = fp * (h - 1) + w;
    if (k == cudaMemcpyDefault) {
        const bool td = on_device(to, tn), fd = on_device(from, fn);
        k = td   ? fd ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice
            : fd ? cudaMemcpyDeviceToHost
                 : cudaMemcpyHostToHost;
    }
    const bool td = k == cudaMemcpyHostToDevice || k == cudaMemcpyDeviceToDevice;
    const bool fd = k == cudaMemcpyDeviceToHost || k == cudaMemcpyDeviceToDevice;
    (td ? need_device : need_host)("copy to", to, tn);
    (fd ? need_device : need_host)("copy from", from, fn);
    const bool capturing = own_stream(s) && s->capture;
    if (block && forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    auto run = [=] {
        for (size_t i = 0; i < h; i++) memmove((uint8_t *)to + i * tp, (const uint8_t *)from + i * fp, w);
    };
    const cudaError_t rc = put(s, run);
    /* memory that is not pinned is copied before the call returns */
    if (rc == cudaSuccess && !capturing && own_stream(s) && ((!td && !pinned(to)) || (!fd && !pinned(from)))) drain(s);
    return rc != cudaSuccess ? rc : result(g().sticky);
}
} // namespace

/* ---- control from tests: sets what FFAI_EMU sets; counters: "used" "launches" "allocs" "seed" return a value; "reset"
 * clears a sticky error. The N of faults: the N-th call from now fails. */
extern "C" __attribute__((visibility("default"))) long long emu_control(const char *what, long long value) {
    LOCK;
    const std::string k = what;
    if (k == "used") return (long long)g().used;
    if (k == "launches") return g().n_launch;
    if (k == "allocs") return (long long)g().ranges.size();
    if (k == "reset") return g().sticky = g().last = cudaSuccess, 0;
    return g().put(k, value) ? 0 : -1;
}

/* ---- launches ---- */
cudaError_t emu_launch(const char *name, cudaStream_t stream, dim3 grid, dim3 block, size_t smem,
                       std::function<void()> body) {
    LOCK;
    const size_t threads = (size_t)block.x * block.y * block.z;
    if (!threads || threads > 1024 || !grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 ||
        grid.x > 0x7FFFFFFF)
        return result(cudaErrorInvalidConfiguration);
    if (smem > EMU_SMEM_MAX) return result(cudaErrorInvalidValue);
    if (hit(&g().set.fail_launch)) return result(cudaErrorLaunchOutOfResources);
    g().n_launch++;
    return put(stream, [=] {
        if (hit(&g().set.fault_kernel)) {
            g().sticky = cudaErrorIllegalAddress;
            return;
        }
        emu_run(name, grid, block, smem, body, (unsigned)g().set.seed);
    });
}

void emu_fault() {
    LOCK;
    g().sticky = cudaErrorLaunchFailure;
}

/* ---- device ---- */
static cudaError_t usable() {
    if (g().set.driver < 12000) return cudaErrorInsufficientDriver;
    return g().set.devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDeviceCount(int *n) {
    LOCK;
    *n = usable() == cudaSuccess ? (int)g().set.devices : 0;
    return result(usable());
}
cudaError_t cudaSetDevice(int i) {
    LOCK;
    if (usable() != cudaSuccess) return result(usable());
    return result(i >= 0 && i < g().set.devices ? g().sticky : cudaErrorInvalidDevice);
}
cudaError_t cudaInitDevice(int i, unsigned, unsigned) { return cudaSetDevice(i); }
cudaError_t cudaGetDevice(int *i) { return *i = 0, cudaSuccess; }
cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int i) {
    LOCK;
    if (i < 0 || i >= g().set.devices) return result(cudaErrorInvalidDevice);
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated GPU");
    p->totalGlobalMem = g().set.mem;
    p->sharedMemPerBlock = 48 << 10, p->sharedMemPerBlockOptin = EMU_SMEM_MAX;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->regsPerBlock = 65536, p->warpSize = 32, p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048;
    p->major = (int)g().set.arch / 10, p->minor = (int)g().set.arch % 10, p->multiProcessorCount = (int)g().set.sm;
    p->l2CacheSize = 50 << 20, p->memoryBusWidth = 5120;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *v, cudaDeviceAttr a, int i) {
    LOCK;
    if (i < 0 || i >= g().set.devices) return result(cudaErrorInvalidDevice);
    switch (a) {
    case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 48 << 10; break;
    case cudaDevAttrClockRate: *v = 1980000; break;
    case cudaDevAttrMultiProcessorCount: *v = (int)g().set.sm; break;
    case cudaDevAttrMemoryClockRate: *v = 2619000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *v = 5120; break;
    case cudaDevAttrL2CacheSize: *v = 50 << 20; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 2048; break;
    case cudaDevAttrUnifiedAddressing: *v = 1; break;
    case cudaDevAttrComputeCapabilityMajor: *v = (int)g().set.arch / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *v = (int)g().set.arch % 10; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = 228 << 10; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *v = 65536; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = EMU_SMEM_MAX; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *v = 1024; break;
    default: *v = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *s, int n, int) { return snprintf(s, (size_t)n, "0000:00:00.0"), cudaSuccess; }
cudaError_t cudaDeviceSynchronize() {
    LOCK;
    return wait_all();
}
cudaError_t cudaDeviceReset() {
    LOCK;
    for (cudaStream_t s : g().streams) s->q.clear();
    for (auto &r : g().ranges)
        if (!r.second.registered) munmap(r.second.map, r.second.map_bytes);
    g().ranges.clear();
    for (auto &r : g().reserved) munmap((void *)r.first, r.second);
    g().reserved.clear(), g().mapped.clear(), g().handles.clear();
    g().used = 0;
    g().sticky = g().last = cudaSuccess;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *avail, size_t *total) {
    LOCK;
    *total = g().set.mem;
    *avail = g().used < g().set.mem ? g().set.mem - g().used : 0;
    return result(g().sticky);
}
cudaError_t cudaDriverGetVersion(int *v) { return *v = (int)g().set.driver, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *v) { return *v = CUDART_VERSION, cudaSuccess; }
const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
#define EMU_X(name, number, text)                                                                                      \
    case name: return text;
        EMU_ERRORS(EMU_X)
#undef EMU_X
    }
    return "unrecognized error code";
}
const char *cudaGetErrorName(cudaError_t e) {
    switch (e) {
#define EMU_X(name, number, text)                                                                                      \
    case name: return #name;
        EMU_ERRORS(EMU_X)
#undef EMU_X
    }
    return "unrecognized error code";
}
cudaError_t cudaGetLastError() {
    LOCK;
    const cudaError_t e = g().last;
    g().last = g().sticky;
    return e;
}
cudaError_t cudaPeekAtLastError() {
    LOCK;
    return g().last;
}

/* ---- memory ---- */
cudaError_t emu_malloc(void **p, size_t n) {
    LOCK;
    *p = nullptr;
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    if (g().sticky != cudaSuccess) return result(g().sticky);
    if (!n) return cudaSuccess;
    if (hit(&g().set.fail_alloc) || n > g().set.mem || g().used + n > g().set.mem)
        return result(cudaErrorMemoryAllocation);
    range r = {};
    r.device = true;
    *p = map_guarded(n, &r);
    if (!*p) return result(cudaErrorMemoryAllocation);
    memset(*p, 0xFF, n);
    g().used += n;
    g().ranges[(uintptr_t)*p] = r;
    return cudaSuccess;
}
cudaError_t emu_malloc_host(void **p, size_t n) {
    LOCK;
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    if (g().sticky != cudaSuccess) return result(g().sticky);
    range r = {};
    *p = map_guarded(n ? n : 1, &r);
    if (!*p) return result(cudaErrorMemoryAllocation);
    g().ranges[(uintptr_t)*p] = r;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    LOCK;
    if (!p) return cudaSuccess;
    if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
    drain_all();
    return drop(p, true);
}
cudaError_t cudaFreeAsync(void *p, cudaStream_t) { return cudaFree(p); }
cudaError_t cudaFreeHost(void *p) {
    LOCK;
    drain_all();
    return drop(p, false);
}
cudaError_t cudaHostRegister(void *p, size_t n, unsigned) {
    LOCK;
    range r = {};
    r.bytes = n, r.registered = true;
    g().ranges[(uintptr_t)p] = r;
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *p) {
    LOCK;
    drain_all();
    return g().ranges.erase((uintptr_t)p) ? cudaSuccess : result(cudaErrorHostMemoryNotRegistered);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, cudaMemcpyKind k) {
    LOCK;
    return copy(to, n, from, n, n, 1, k, nullptr, true);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind k, cudaStream_t s) {
    LOCK;
    return copy(to, n, from, n, n, 1, k, s, false);
}
cudaError_t cudaMemcpy2D(void *to, size_t tp, const void *from, size_t fp, size_t w, size_t h, cudaMemcpyKind k) {
    LOCK;
    return copy(to, tp, from, fp, w, h, k, nullptr, true);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t tp, const void *from, size_t fp, size_t w, size_t h, cudaMemcpyKind k,
                              cudaStream_t s) {
    LOCK;
    return copy(to, tp, from, fp, w, h, k, s, false);
}
cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int v, size_t w, size_t h, cudaStream_t s) {
    LOCK;
    if (!w || !h) return cudaSuccess;
    need_device("fill", p, pitch * (h - 1) + w);
    return put(s, [=] {
        for (size_t i = 0; i < h; i++) memset((uint8_t *)p + i * pitch, v, w);
    });
}
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s) { return cudaMemset2DAsync(p, n, v, n, 1, s); }
cudaError_t cudaMemset(void *p, int v, size_t n) { return cudaMemsetAsync(p, v, n, nullptr); }

/* ---- streams and events ---- */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    LOCK;
    if (g().sticky != cudaSuccess) return result(g().sticky);
    *s = new emu_stream();
    g().streams.push_back(*s);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithFlags(s, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int) { return cudaStreamCreateWithFlags(s, f); }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    LOCK;
    if (!own_stream(s)) return result(cudaErrorInvalidResourceHandle);
    drain(s);
    auto &all = g().streams;
    for (size_t i = 0; i < all.size(); i++)
        if (all[i] == s) all.erase(all.begin() + (ptrdiff_t)i--);
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    LOCK;
    if (!own_stream(s)) return wait_all();
    if (s->capture) {
        s->capture->broken = true;
        return result(cudaErrorStreamCaptureUnsupported);
    }
    drain(s);
    return result(g().sticky);
}
cudaError_t cudaStreamQuery(cudaStream_t s) { return cudaStreamSynchronize(s); }
cudaError_t cudaLaunchHostFunc(cudaStream_t s, void (*f)(void *), void *user) {
    LOCK;
    return put(s, [=] { f(user); });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    LOCK;
    if (g().sticky != cudaSuccess) return result(g().sticky);
    *e = new emu_event{std::make_shared<event_state>()};
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    LOCK;
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    LOCK;
    std::shared_ptr<event_state> st = e->st;
    if (own_stream(s) && s->capture) {
        st->capture = s->capture; /* joins captured streams; leaves no node */
        return cudaSuccess;
    }
    const long id = ++st->recorded;
    st->stream = s, st->capture = nullptr;
    return put(s, [=] { st->done = id, st->time = now(); });
}
static void settle(event_state *st, long id) {
    if (st->done < id && own_stream(st->stream)) {
        for (cudaStream_t s : g().streams)
            if (s == st->stream) return drain(s);
    }
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    LOCK;
    std::shared_ptr<event_state> st = e->st;
    if (st->capture) {
        if (!own_stream(s)) return result(cudaErrorStreamCaptureUnsupported);
        s->capture = st->capture;
        return cudaSuccess;
    }
    const long id = st->recorded;
    if (own_stream(s) && s->capture) return result(cudaErrorStreamCaptureUnsupported);
    return put(s, [=] { settle(st.get(), id); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    LOCK;
    if (e->st->capture) return result(cudaErrorStreamCaptureUnsupported);
    settle(e->st.get(), e->st->recorded);
    return result(g().sticky);
}
cudaError_t cudaEventQuery(cudaEvent_t e) { return cudaEventSynchronize(e); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    LOCK;
    if (!a->st->recorded || !b->st->recorded) return result(cudaErrorInvalidResourceHandle);
    if (a->st->done < a->st->recorded || b->st->done < b->st->recorded) return cudaErrorNotReady;
    *ms = (float)((b->st->time - a->st->time) * 1e3);
    return result(g().sticky);
}

/* ---- graphs ---- */
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
    LOCK;
    if (g().sticky != cudaSuccess) return result(g().sticky);
    if (!own_stream(s) || s->capture) return result(cudaErrorStreamCaptureUnsupported);
    s->capture = new emu_graph{{}, std::this_thread::get_id(), mode, s, false};
    g().captures.push_back(s->capture);
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out) {
    LOCK;
    *out = nullptr;
    if (!own_stream(s) || !s->capture || s->capture->origin != s) return result(cudaErrorIllegalState);
    emu_graph *c = s->capture;
    for (cudaStream_t o : g().streams)
        if (o->capture == c) o->capture = nullptr;
    for (size_t i = 0; i < g().captures.size(); i++)
        if (g().captures[i] == c) g().captures.erase(g().captures.begin() + (ptrdiff_t)i--);
    if (c->broken) {
        delete c;
        return result(cudaErrorStreamCaptureInvalidated);
    }
    *out = c;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *st) {
    LOCK;
    *st = own_stream(s) && s->capture
              ? s->capture->broken ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive
              : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *) { return cudaSuccess; }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t gr, unsigned long long) {
    LOCK;
    if (g().sticky != cudaSuccess) return result(g().sticky);
    *e = new emu_graph_exec{std::make_shared<std::vector<work>>(gr->nodes)};
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *e, cudaGraph_t gr, unsigned long long f) {
    return cudaGraphInstantiate(e, gr, f);
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t e, cudaGraph_t gr, cudaGraphExecUpdateResultInfo *info) {
    LOCK;
    *info = {};
    e->nodes = std::make_shared<std::vector<work>>(gr->nodes);
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) {
    LOCK;
    if (hit(&g().set.fail_launch)) return result(cudaErrorLaunchOutOfResources);
    g().n_launch++;
    std::shared_ptr<std::vector<work>> nodes = e->nodes;
    return put(s, [=] {
        for (const work &w : *nodes)
            if (g().sticky == cudaSuccess) w();
    });
}
cudaError_t cudaGraphDestroy(cudaGraph_t gr) {
    LOCK;
    delete gr;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {
    LOCK;
    delete e;
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t gr, cudaGraphNode_t *, size_t *n) {
    LOCK;
    *n = gr->nodes.size();
    return cudaSuccess;
}

/* ---- driver: address space and memory for it ---- */
enum : size_t { GRANULE = (size_t)2 << 20 };
static CUresult mem_granularity(size_t *n, const CUmemAllocationProp *, CUmemAllocationGranularity_flags) {
    return *n = GRANULE, CUDA_SUCCESS;
}
static CUresult mem_reserve(CUdeviceptr *p, size_t n, size_t, CUdeviceptr, unsigned long long) {
    LOCK;
    if (!n || n % GRANULE) return CUDA_ERROR_INVALID_VALUE;
    uint8_t *m = (uint8_t *)mmap(nullptr, n + GRANULE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    uint8_t *at = (uint8_t *)(((uintptr_t)m + GRANULE - 1) / GRANULE * GRANULE);
    if (at > m) munmap(m, (size_t)(at - m));
    if (at < m + GRANULE) munmap(at + n, (size_t)(m + GRANULE - at));
    g().reserved[(uintptr_t)at] = n;
    *p = (CUdeviceptr)(uintptr_t)at;
    return CUDA_SUCCESS;
}
static CUresult mem_address_free(CUdeviceptr p, size_t n) {
    LOCK;
    auto it = g().reserved.find((uintptr_t)p);
    if (it == g().reserved.end() || it->second != n) return CUDA_ERROR_INVALID_VALUE;
    auto m = g().mapped.lower_bound((uintptr_t)p);
    if (m != g().mapped.end() && m->first < p + n) return CUDA_ERROR_INVALID_VALUE; /* unmap first */
    munmap((void *)(uintptr_t)p, n);
    g().reserved.erase(it);
    return CUDA_SUCCESS;
}
static void handle_drop(unsigned long long h) {
    auto it = g().handles.find(h);
    if (--it->second.second) return;
    g().used -= it->second.first;
    g().handles.erase(it);
}
static CUresult mem_create(CUmemGenericAllocationHandle *h, size_t n, const CUmemAllocationProp *, unsigned long long) {
    LOCK;
    if (!n || n % GRANULE) return CUDA_ERROR_INVALID_VALUE;
    if (hit(&g().set.fail_alloc) || g().used + n > g().set.mem) return CUDA_ERROR_OUT_OF_MEMORY;
    g().used += n;
    *h = g().next_handle++;
    g().handles[*h] = {n, 1};
    return CUDA_SUCCESS;
}
static CUresult mem_release(CUmemGenericAllocationHandle h) {
    LOCK;
    if (!g().handles.count(h)) return CUDA_ERROR_INVALID_VALUE;
    handle_drop(h);
    return CUDA_SUCCESS;
}
static CUresult mem_map(CUdeviceptr p, size_t n, size_t offset, CUmemGenericAllocationHandle h, unsigned long long) {
    LOCK;
    auto it = g().handles.find(h);
    if (it == g().handles.end() || offset || it->second.first != n || p % GRANULE) return CUDA_ERROR_INVALID_VALUE;
    it->second.second++;
    g().mapped[(uintptr_t)p] = {n, h};
    return CUDA_SUCCESS;
}
static CUresult mem_set_access(CUdeviceptr p, size_t n, const CUmemAccessDesc *, size_t) {
    LOCK;
    if (!on_device((void *)(uintptr_t)p, n)) return CUDA_ERROR_INVALID_VALUE;
    mprotect((void *)(uintptr_t)p, n, PROT_READ | PROT_WRITE);
    memset((void *)(uintptr_t)p, 0xFF, n);
    return CUDA_SUCCESS;
}
static CUresult mem_unmap(CUdeviceptr p, size_t n) {
    LOCK;
    drain_all();
    for (const uintptr_t end = (uintptr_t)p + n; p < end;) {
        auto it = g().mapped.find((uintptr_t)p);
        if (it == g().mapped.end() || p + it->second.first > end) return CUDA_ERROR_INVALID_VALUE;
        const size_t bytes = it->second.first;
        mprotect((void *)(uintptr_t)p, bytes, PROT_NONE);
        madvise((void *)(uintptr_t)p, bytes, MADV_DONTNEED);
        handle_drop(it->second.second);
        g().mapped.erase(it);
        p += bytes;
    }
    return CUDA_SUCCESS;
}
/* What the driver asks of arrays that are copied with the 128-byte swizzle. */
static CUresult tensor_map(CUtensorMap *m, CUtensorMapDataType type, cuuint32_t rank, void *p, const cuuint64_t *dim,
                           const cuuint64_t *stride, const cuuint32_t *box, const cuuint32_t *step,
                           CUtensorMapInterleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                           CUtensorMapFloatOOBfill) {
    if ((uintptr_t)m & 63 || (uintptr_t)p & 15 || rank != 4 || type != CU_TENSOR_MAP_DATA_TYPE_UINT16)
        return CUDA_ERROR_INVALID_VALUE;
    if (swizzle != CU_TENSOR_MAP_SWIZZLE_128B || box[0] * 2 > 128) return CUDA_ERROR_INVALID_VALUE;
    *m = {};
    m->base = (const uint8_t *)p;
    for (int i = 0; i < 4; i++) {
        m->dim[i] = dim[i], m->box[i] = box[i], m->stride[i] = i ? stride[i - 1] : 2;
        if (!dim[i] || dim[i] > (uint64_t)1 << 32 || !box[i] || box[i] > 256 || step[i] != 1)
            return CUDA_ERROR_INVALID_VALUE;
        if (i && (stride[i - 1] % 16 || stride[i - 1] >> 40)) return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
static CUresult error_text(CUresult rc, const char **s) {
    *s = cudaGetErrorString((cudaError_t)rc);
    return CUDA_SUCCESS;
}
static CUresult error_name(CUresult rc, const char **s) {
    *s = rc == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
    return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPoint(const char *name, void **f, unsigned long long,
                                    cudaDriverEntryPointQueryResult *r) {
    static const std::map<std::string, void *> all = {{"cuMemGetAllocationGranularity", (void *)mem_granularity},
                                                      {"cuMemAddressReserve", (void *)mem_reserve},
                                                      {"cuMemAddressFree", (void *)mem_address_free},
                                                      {"cuMemCreate", (void *)mem_create},
                                                      {"cuMemRelease", (void *)mem_release},
                                                      {"cuMemMap", (void *)mem_map},
                                                      {"cuMemSetAccess", (void *)mem_set_access},
                                                      {"cuMemUnmap", (void *)mem_unmap},
                                                      {"cuTensorMapEncodeTiled", (void *)tensor_map},
                                                      {"cuGetErrorString", (void *)error_text},
                                                      {"cuGetErrorName", (void *)error_name}};
    const auto it = all.find(name);
    *f = it == all.end() ? nullptr : it->second;
    if (r) *r = *f ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned, unsigned long long flags,
                                             cudaDriverEntryPointQueryResult *r) {
    return cudaGetDriverEntryPoint(name, f, flags, r);
}
