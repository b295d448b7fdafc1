/* Running a kernel on the host: each thread of a block is a fiber (a stack and a saved register set), blocks come one
 * after the other. A fiber runs until it meets others (barrier, warp operation) and is not the last to come; then the
 * scheduler takes the next one of its warp, then the next warp. When nobody can go on and not all are done, threads
 * wait for different things: the hardware would hang or compute nonsense, so the program stops with their places.
 *
 * One lock (emu_rt.cpp) is held around launches, so all state here is plain. */
#include "emu.h"
#include "emu_int.h"

#include <algorithm>
#include <link.h>
#include <map>
#include <random>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <vector>

extern "C" {
#include "tensor/dtype.h"
}

enum { STACK = 128 << 10, PAGE = 4096, MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32 };

namespace {
enum state { READY, AT_BARRIER, AT_WARP, AT_MBAR, AT_NAMED, DONE };

struct copy16 {
    uint8_t *to;
    int size;
    uint8_t bytes[16];
};

/* A wgmma as one lane sees it: rows g and g + 8 of its warp's part of a and d. */
struct group_product {
    float *d;
    int n, flags;
    bool shared; /* a is in shared memory: da */
    float a[2][16];
    uint64_t da, db;
};

/* A barrier's 8 bytes: arrivals that make a phase, arrivals that are missing, the phase's parity, bytes that are
 * missing (below zero: came before they were asked for). */
struct mbar {
    uint16_t want, missing;
    uint32_t parity : 1, copied : 1; /* copied: it counts copies that are no copy engine's */
    int bytes : 30;
};

/* Barriers of some of a block's warps. */
struct named_bar {
    unsigned gen;
    int came, want;
};

struct fiber : emu_thread_id {
    void *sp;
    int index, warp;
    state st;
    const char *op;                          /* what it waits for */
    unsigned seen;                           /* generation of the meeting it waits for */
    std::vector<std::vector<copy16>> groups; /* committed copies, oldest first */
    std::vector<copy16> open;
    const mbar *bar; /* that it waits for */
    uint32_t bar_parity;
    int named;
    bool fenced, unseen; /* wgmma.fence was called; copies came after the last fence.proxy */
    std::vector<std::vector<group_product>> product_groups;
    std::vector<group_product> products;
};

struct warp {
    unsigned gen;
    int n, came;
    const char *op;
    uint8_t lane[2][32 * EMU_LANE_BYTES];
};

/* The launch under way. */
struct {
    const char *name;
    const std::function<void()> *body;
    int n_thread, n_warp, n_done;
    unsigned gen; /* of the barrier */
    int came, n_true[2];
    bool waited, triggered; /* cu_pdl_wait, cu_pdl_launch were called */
    size_t smem;
    void *main_sp;
    bool running;
} run;

named_bar named[16];
fiber *fibers;
uint8_t *stacks;
warp *warps;
uint8_t *smem_end; /* the guard page behind dynamic shared memory */
uint8_t *smem_base;
uint8_t *tls;
size_t tls_bytes;
std::map<const mbar *, std::vector<copy16>> bar_copies; /* of this phase: they come with its end */
int n_made;                                             /* fibers with a stack */
thread_local volatile char probe; /* the only other thread-local object: touching it makes the block exist */
} // namespace

emu_thread_id *emu_self;
emu_block_id emu_where;

/* Saves the callee-saved registers on the stack, its address in *save, and goes on where `load` was saved. */
extern "C" void emu_switch(void **save, void *load);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch,@function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch,.-emu_switch
)");

void emu_die(const char *fmt, ...) {
    va_list ap;
    char text[512];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fflush(stdout);
    if (run.running)
        fprintf(stderr, "emulated GPU: %s: block (%u, %u, %u) thread (%u, %u, %u) of %u x %u x %u: %s\n", run.name,
                blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, blockDim.x, blockDim.y,
                blockDim.z, text);
    else
        fprintf(stderr, "emulated GPU: %s\n", text);
    abort();
}

static fiber *self() { return (fiber *)emu_self; }

static void to_main() { emu_switch(&self()->sp, run.main_sp); }

static void fiber_main() {
    for (;;) {
        (*run.body)();
        fiber *f = self();
        if (!f->products.empty() || !f->product_groups.empty()) emu_die("returned before its wgmma had ended");
        f->st = DONE;
        run.n_done++;
        to_main();
    }
}

static void on_fault(int sig, siginfo_t *info, void *) {
    signal(sig, SIG_DFL);
    if (run.running)
        fprintf(stderr, "emulated GPU: %s: block (%u, %u, %u) thread (%u, %u, %u): access to %p\n", run.name,
                blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, info->si_addr);
}

/* While a kernel runs, an access to no memory ends the program with its place. */
struct fault_guard {
    struct sigaction old[2];
    fault_guard() {
        static uint8_t fault_stack[64 << 10];
        const stack_t ss = {fault_stack, 0, sizeof fault_stack};
        sigaltstack(&ss, nullptr);
        struct sigaction sa = {};
        sa.sa_sigaction = on_fault;
        sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &sa, &old[0]);
        sigaction(SIGBUS, &sa, &old[1]);
    }
    ~fault_guard() {
        sigaction(SIGSEGV, &old[0], nullptr);
        sigaction(SIGBUS, &old[1], nullptr);
    }
};

/* The thread-local memory of this module, which is static shared memory and nothing else. */
static int find_tls(struct dl_phdr_info *info, size_t, void *) {
    const uintptr_t me = (uintptr_t)&emu_self;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        const uintptr_t a = info->dlpi_addr + p->p_vaddr;
        if (p->p_type != PT_LOAD || me < a || me >= a + p->p_memsz) continue;
        for (int k = 0; k < info->dlpi_phnum; k++)
            if (info->dlpi_phdr[k].p_type == PT_TLS) {
                tls = (uint8_t *)info->dlpi_tls_data;
                tls_bytes = info->dlpi_phdr[k].p_memsz;
            }
        return 1;
    }
    return 0;
}

static void *guarded(size_t bytes) {
    void *p = mmap(nullptr, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) emu_die("no memory for stacks");
    mprotect((uint8_t *)p + bytes, PAGE, PROT_NONE);
    return p;
}

static void make_fibers(int n) {
    if (!fibers) {
        fibers = new fiber[MAX_THREADS]();
        warps = new warp[MAX_WARPS]();
        stacks = (uint8_t *)guarded((size_t)MAX_THREADS * STACK);
        smem_end = (uint8_t *)guarded(EMU_SMEM_MAX) + EMU_SMEM_MAX;
    }
    for (; n_made < n; n_made++) {
        uint8_t *s = stacks + (size_t)n_made * STACK;
        mprotect(s, PAGE, PROT_NONE); /* below each stack */
        void **top = (void **)(s + STACK);
        top[-1] = nullptr;
        top[-2] = (void *)fiber_main; /* where the first switch returns to */
        fibers[n_made].sp = top - 8;
        fibers[n_made].index = n_made;
        fibers[n_made].warp = n_made / 32;
        fibers[n_made].lane = n_made % 32;
    }
}

static bool can_run(const fiber *f) {
    switch (f->st) {
    case READY: return true;
    case AT_BARRIER: return f->seen != run.gen;
    case AT_WARP: return f->seen != warps[f->warp].gen;
    case AT_MBAR: return f->bar->parity != f->bar_parity;
    case AT_NAMED: return f->seen != named[f->named].gen;
    default: return false;
    }
}

[[noreturn]] static void stuck() {
    int n = 0;
    fprintf(stderr, "emulated GPU: %s: block (%u, %u, %u): threads wait for different things\n", run.name, blockIdx.x,
            blockIdx.y, blockIdx.z);
    for (int i = 0; i < run.n_thread; i++) {
        const fiber *f = &fibers[i];
        const char *what = f->st == DONE         ? "returned"
                           : f->st == AT_BARRIER ? "__syncthreads"
                           : f->st == AT_MBAR    ? "mbarrier"
                           : f->st == AT_NAMED   ? "barrier.cta"
                                                 : f->op;
        int j = i;
        while (j + 1 < run.n_thread && fibers[j + 1].st == f->st && (f->st != AT_WARP || fibers[j + 1].op == f->op))
            j++;
        if (n++ < 40) fprintf(stderr, "  threads %d..%d: %s\n", i, j, what);
        i = j;
    }
    abort();
}

static void run_block(std::mt19937 *rng) {
    memset(smem_base, 0xFF, run.smem);
    static int order[MAX_WARPS];
    for (int i = 0; i < run.n_warp; i++) order[i] = i;
    if (rng) std::shuffle(order, order + run.n_warp, *rng);
    for (int i = 0; i < run.n_thread; i++) {
        fiber *f = &fibers[i];
        f->tid = {(unsigned)i % blockDim.x, (unsigned)i / blockDim.x % blockDim.y,
                  (unsigned)i / (blockDim.x * blockDim.y)};
        f->st = READY;
        f->groups.clear(), f->open.clear();
        f->fenced = f->unseen = false;
    }
    bar_copies.clear();
    for (named_bar &b : named) b.came = 0;
    for (int w = 0; w < run.n_warp; w++) warps[w].came = 0, warps[w].n = std::min(32, run.n_thread - 32 * w);
    run.n_done = run.came = run.n_true[0] = run.n_true[1] = 0;
    while (run.n_done < run.n_thread) {
        bool moved = false;
        for (int o = 0; o < run.n_warp; o++) {
            const int w = order[o];
            for (bool again = true; again;) {
                again = false;
                for (int l = 0; l < warps[w].n; l++) {
                    fiber *f = &fibers[32 * w + l];
                    if (!can_run(f)) continue;
                    f->st = READY;
                    emu_self = f;
                    emu_switch(&run.main_sp, f->sp);
                    moved = again = true;
                }
            }
        }
        if (!moved) stuck();
    }
}

void emu_run(const char *name, dim3 grid, dim3 block, size_t smem, const std::function<void()> &body, unsigned seed) {
    const size_t n_block = (size_t)grid.x * grid.y * grid.z;
    run.name = name, run.body = &body, run.smem = smem;
    run.n_thread = (int)(block.x * block.y * block.z), run.n_warp = (run.n_thread + 31) / 32;
    run.waited = run.triggered = false;
    make_fibers(run.n_thread);
    probe = 0;
    dl_iterate_phdr(find_tls, nullptr);
    smem_base = smem_end - ((smem + 127) & ~(size_t)127);
    emu_where.grid = grid, emu_where.block = block;
    const fault_guard guard;
    run.running = true;
    std::vector<uint32_t> order;
    std::mt19937 rng(seed);
    if (seed) {
        order.resize(n_block);
        for (size_t i = 0; i < n_block; i++) order[i] = (uint32_t)i;
        std::shuffle(order.begin(), order.end(), rng);
    }
    for (size_t i = 0; i < n_block; i++) {
        const size_t b = seed ? order[i] : i;
        emu_where.bid = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
        if (tls && (i < 4 || tls_bytes <= 64 << 10)) memset(tls, 0xFF, tls_bytes);
        run_block(seed ? &rng : nullptr);
    }
    emu_self = &fibers[0];
    if (!run.waited) emu_die("no thread of the grid called cu_pdl_wait: the kernel after it may start too early");
    run.running = false;
}

/* ---- meetings ---- */

void *emu_dyn_smem() { return smem_base; }

void emu_barrier(int v, int *n_true) {
    fiber *f = self();
    const unsigned gen = run.gen, slot = gen & 1;
    if (v) run.n_true[slot]++;
    if (++run.came == run.n_thread) {
        run.came = 0;
        run.n_true[slot ^ 1] = 0;
        run.gen++;
    } else {
        f->st = AT_BARRIER, f->seen = gen;
        to_main();
    }
    if (n_true) *n_true = run.n_true[slot];
}

const uint8_t *emu_meet(const char *op, unsigned mask, const void *mine, size_t bytes) {
    fiber *f = self();
    warp *w = &warps[f->warp];
    if (mask != 0xFFFFFFFFu) emu_die("%s with mask %08x: only full warps are emulated", op, mask);
    if (w->n != 32) emu_die("%s in a warp of %d threads", op, w->n);
    const unsigned gen = w->gen;
    uint8_t *all = w->lane[gen & 1];
    if (bytes) memcpy(all + f->lane * EMU_LANE_BYTES, mine, bytes);
    if (w->came && w->op != op && strcmp(w->op, op)) emu_die("%s while other lanes of the warp wait in %s", op, w->op);
    w->op = op;
    if (++w->came == 32) {
        w->came = 0;
        w->gen++;
    } else {
        f->st = AT_WARP, f->seen = gen, f->op = op;
        to_main();
    }
    return all;
}

/* ---- instructions ---- */

static bool in_shared(const void *p, size_t n) {
    const uint8_t *b = (const uint8_t *)p;
    return (b >= smem_base && b + n <= smem_base + run.smem) || (b >= tls && b + n <= tls + tls_bytes);
}

void emu_cp_async(void *smem, const void *p, int n, int size) {
    if (n < 0 || n > size) emu_die("cp.async of %d bytes", n);
    if (!in_shared(smem, (size_t)size)) emu_die("cp.async to %p: not in shared memory", smem);
    const uintptr_t low = (uintptr_t)size - 1;
    if ((uintptr_t)smem & low || (n && (uintptr_t)p & low))
        emu_die("cp.async %p to %p: not %d-byte aligned", p, smem, size);
    copy16 c = {(uint8_t *)smem, size, {}};
    if (n) memcpy(c.bytes, p, (size_t)n);
    memset(smem, 0xFF, (size_t)size);
    self()->open.push_back(c);
}

void emu_cp_commit() {
    self()->groups.push_back(std::move(self()->open));
    self()->open.clear();
}

void emu_cp_wait(int pending) {
    auto &g = self()->groups;
    const size_t n = g.size() > (size_t)pending ? g.size() - (size_t)pending : 0;
    for (size_t i = 0; i < n; i++)
        for (const copy16 &c : g[i]) memcpy(c.to, c.bytes, (size_t)c.size);
    g.erase(g.begin(), g.begin() + (ptrdiff_t)n);
}

void emu_pdl(int wait) { (wait ? run.waited : run.triggered) = true; }

void emu_mma(float d[4], const float a[8], const float b[4], const char *op) {
    struct {
        float a[8], b[4];
    } mine;
    memcpy(mine.a, a, sizeof mine.a);
    memcpy(mine.b, b, sizeof mine.b);
    const uint8_t *all = emu_meet(op, 0xFFFFFFFFu, &mine, sizeof mine);
    const int g = emu_self->lane / 4, t = emu_self->lane % 4;
    /* lane (g, i) has of row g: k 2i, 2i + 1 in a[0..1], k 2i + 8.. in a[4..5]; of row g + 8: a[2..3], a[6..7] */
    for (int c = 0; c < 2; c++) {
        float lo = 0, hi = 0;
        for (int i = 0; i < 4; i++) {
            const float *fa = (const float *)(all + (4 * g + i) * EMU_LANE_BYTES);
            const float *fb = (const float *)(all + (4 * (2 * t + c) + i) * EMU_LANE_BYTES) + 8;
            lo += fa[0] * fb[0] + fa[1] * fb[1] + fa[4] * fb[2] + fa[5] * fb[3];
            hi += fa[2] * fb[0] + fa[3] * fb[1] + fa[6] * fb[2] + fa[7] * fb[3];
        }
        d[c] += lo, d[2 + c] += hi;
    }
}

void emu_ldmatrix_x4(uint32_t r[4], const void *smem_row, bool trans) {
    if ((uintptr_t)smem_row & 15) emu_die("ldmatrix row %p: not 16-byte aligned", smem_row);
    if (!in_shared(smem_row, 16)) emu_die("ldmatrix row %p: not in shared memory", smem_row);
    const uint8_t *all = emu_meet(trans ? "ldmatrix.trans" : "ldmatrix", 0xFFFFFFFFu, smem_row, 16);
    const int g = emu_self->lane / 4, t = emu_self->lane % 4;
    for (int m = 0; m < 4; m++) {
        uint16_t e[2];
        for (int i = 0; i < 2; i++) {
            const int row = trans ? 2 * t + i : g, col = trans ? g : 2 * t + i;
            memcpy(&e[i], all + (8 * m + row) * EMU_LANE_BYTES + 2 * col, 2);
        }
        r[m] = (uint32_t)e[1] << 16 | e[0];
    }
}

/* ---- warpgroups ---- */

uint32_t emu_smem_addr(const void *p) {
    if (!in_shared(p, 1)) emu_die("%p is not in shared memory", p);
    const uint8_t *b = (const uint8_t *)p; /* static shared memory behind the dynamic */
    return b >= smem_base && b < smem_end ? (uint32_t)(b - smem_base) + 0x400
                                          : (uint32_t)(b - tls) + (EMU_SMEM_MAX + 0x400);
}

static mbar *bar_of(uint32_t bar) {
    uint8_t *p = bar < EMU_SMEM_MAX + 0x400 ? smem_base + bar - 0x400 : tls + bar - (EMU_SMEM_MAX + 0x400);
    if (bar & 7 || bar < 0x400 || !in_shared(p, 8)) emu_die("barrier at %u", bar);
    return (mbar *)(void *)p;
}

void emu_mbar_init(uint32_t bar, int n) {
    if (n < 1 || n > 0xFFFF) emu_die("barrier of %d arrivals", n);
    *bar_of(bar) = {(uint16_t)n, (uint16_t)n, 0, 0, 0};
}

/* The phase ends when all have arrived and all bytes have come. */
static void mbar_turn(mbar *b) {
    if (b->missing || b->bytes) return;
    b->missing = b->want;
    b->parity ^= 1;
    for (const copy16 &c : bar_copies[b]) memcpy(c.to, c.bytes, (size_t)c.size);
    bar_copies[b].clear();
}

void emu_mbar_expect(uint32_t bar, int bytes) {
    mbar *b = bar_of(bar);
    b->bytes += bytes;
    emu_mbar_arrive(bar, false);
}

void emu_mbar_arrive(uint32_t bar, bool copies) {
    mbar *b = bar_of(bar);
    fiber *f = self();
    if (b->want == 0xFFFF) emu_die("arrival at a barrier that was not made");
    if (copies) {
        b->copied = 1;
        std::vector<copy16> &to = bar_copies[b];
        for (auto &g : f->groups) to.insert(to.end(), g.begin(), g.end());
        to.insert(to.end(), f->open.begin(), f->open.end());
        f->groups.clear(), f->open.clear();
    }
    if (!b->missing) emu_die("more arrivals at a barrier than it was made for");
    b->missing--;
    mbar_turn(b);
}

void emu_mbar_wait(uint32_t bar, int parity) {
    mbar *b = bar_of(bar);
    fiber *f = self();
    if (b->want == 0xFFFF) emu_die("wait at a barrier that was not made");
    if (b->parity == (uint32_t)parity) {
        f->st = AT_MBAR, f->bar = b, f->bar_parity = (uint32_t)parity;
        to_main();
    }
    if (b->copied) f->unseen = true;
}

void emu_bar(int id, int n, bool wait) {
    if (id < 1 || id > 15 || n < 32 || n % 32 || n > run.n_thread) emu_die("barrier %d of %d threads", id, n);
    named_bar *b = &named[id];
    if (b->came && b->want != n) emu_die("barrier %d of %d threads, and of %d", id, b->want, n);
    const unsigned gen = b->gen;
    b->want = n;
    if (++b->came == n) {
        b->came = 0;
        b->gen++;
    } else if (wait) {
        self()->st = AT_NAMED, self()->seen = gen, self()->named = id;
        to_main();
    }
}

/* Rows of the box with the 128-byte swizzle; zeros for what is outside. The bytes come when the phase ends. */
void emu_tma_load(uint32_t to, const cu_tma *m, uint32_t bar, const int c[4]) {
    mbar *b = bar_of(bar);
    if (to & 1023) emu_die("copy to %u: not at a multiple of 1024", to);
    const int rows = (int)(m->box[1] * m->box[2] * m->box[3]), width = (int)m->box[0] * 2;
    uint8_t *base = smem_base + to - 0x400;
    if (to < 0x400 || !in_shared(base, (size_t)rows * 128)) emu_die("copy to %u: not in shared memory", to);
    for (int r = 0; r < rows; r++) {
        const int64_t at[4] = {c[0], c[1] + r % (int)m->box[1], c[2] + r / (int)m->box[1] % (int)m->box[2],
                               c[3] + r / (int)(m->box[1] * m->box[2])};
        bool inside = true;
        const uint8_t *row = m->base;
        for (int i = 1; i < 4; i++) {
            inside = inside && at[i] >= 0 && (uint64_t)at[i] < m->dim[i];
            row += at[i] * (int64_t)m->stride[i];
        }
        for (int p = 0; p < width / 16; p++) {
            copy16 x = {base + r * 128 + ((p ^ r) & 7) * 16, 16, {}};
            for (int e = 0; e < 8; e++) {
                const int64_t col = at[0] + 8 * p + e;
                if (inside && col >= 0 && (uint64_t)col < m->dim[0]) memcpy(x.bytes + 2 * e, row + 2 * col, 2);
            }
            memset(x.to, 0xFF, 16);
            bar_copies[b].push_back(x);
        }
    }
    b->bytes -= rows * width;
    mbar_turn(b);
}

void emu_bulk_load(uint32_t to, const void *from, uint32_t bar, int n) {
    mbar *b = bar_of(bar);
    if ((to | (uint32_t)(uintptr_t)from | (uint32_t)n) & 15 || n < 16)
        emu_die("copy of %d bytes from %p to %u", n, from, to);
    uint8_t *base = smem_base + to - 0x400;
    if (to < 0x400 || !in_shared(base, (size_t)n)) emu_die("copy to %u: not in shared memory", to);
    for (int i = 0; i < n; i += 16) {
        copy16 x = {base + i, 16, {}};
        memcpy(x.bytes, (const uint8_t *)from + i, 16);
        memset(x.to, 0xFF, 16);
        bar_copies[b].push_back(x);
    }
    b->bytes -= n;
    mbar_turn(b);
}

void emu_proxy_fence() { self()->unseen = false; }
void emu_wgmma_fence() { self()->fenced = true; }

/* Element (k, n) of an operand in shared memory: PTX ISA, matrix descriptor, 128-byte swizzle, rows of 64 along k or
 * (trans) along n. */
static float group_operand(uint64_t desc, int k, int n, int flags) {
    const uint32_t start = (uint32_t)(desc & 0x3FFF) << 4, eight = (uint32_t)(desc >> 32 & 0x3FFF) << 4;
    const uint32_t next = (uint32_t)(desc >> 16 & 0x3FFF) << 4;
    uint32_t at = start;
    if (flags & EMU_WG_TRANS)
        at += (uint32_t)(n / 64) * next + (uint32_t)(k / 8) * eight + (uint32_t)(k % 8) * 128 + (uint32_t)(n % 64) * 2;
    else
        at += (uint32_t)(n / 8) * eight + (uint32_t)(n % 8) * 128 + (uint32_t)k * 2;
    at ^= (at >> 7 & 7) << 4;
    const uint8_t *p = smem_base + at - 0x400;
    if (at < 0x400 || !in_shared(p, 2)) emu_die("wgmma reads shared memory at %u", at);
    uint16_t v;
    memcpy(&v, p, 2);
    return flags & EMU_WG_F16 ? cu_f16(v) : cu_bf16(v);
}

static void group_multiply(const group_product &p) {
    const int lane = emu_self->lane, g = lane / 4, t = lane % 4, row = self()->warp % 4 * 16 + g;
    float a[2][16];
    memcpy(a, p.a, sizeof a);
    for (int k = 0; p.shared && k < 16; k++)
        for (int r = 0; r < 2; r++) a[r][k] = group_operand(p.da, k, row + 8 * r, p.flags & EMU_WG_F16);
    for (int j = 0; j < p.n / 8; j++)
        for (int c = 0; c < 2; c++) {
            float lo = 0, hi = 0;
            for (int k = 0; k < 16; k++) {
                const float b = group_operand(p.db, k, 8 * j + 2 * t + c, p.flags);
                lo += a[0][k] * b, hi += a[1][k] * b;
            }
            float *d = p.d + 4 * j + c;
            if (p.flags & EMU_WG_FRESH) d[0] = d[2] = 0;
            d[0] += lo, d[2] += hi;
        }
}

/* The lanes of a row bring its 16 elements at once; the rest happens at the wait, as late as it may. */
void emu_wgmma(float *d, int n, const uint32_t *a, uint64_t da, uint64_t db, int flags) {
    fiber *f = self();
    struct {
        uint32_t a[4];
        uint64_t da, db;
    } mine = {{}, da, db};
    if (a) memcpy(mine.a, a, sizeof mine.a);
    if (!f->fenced) emu_die("wgmma without wgmma.fence before it");
    if (f->unseen) emu_die("wgmma reads what came by copies, without fence.proxy.async since the wait for them");
    if (db >> 62 != 1 || (db >> 49 & 7) || (!a && (da >> 62 != 1 || (da >> 49 & 7))))
        emu_die("wgmma with descriptors %016llx, %016llx: not emulated", (unsigned long long)da,
                (unsigned long long)db);
    const uint8_t *all = emu_meet("wgmma", 0xFFFFFFFFu, &mine, sizeof mine);
    group_product p = {d, n, flags, !a, {}, da, db};
    const int g = f->lane / 4;
    for (int i = 0; i < 4; i++) {
        const uint8_t *lane = all + (4 * g + i) * EMU_LANE_BYTES;
        uint32_t v[4];
        uint64_t desc[2];
        memcpy(v, lane, sizeof v), memcpy(desc, lane + sizeof v, sizeof desc);
        if (desc[0] != da || desc[1] != db) emu_die("wgmma with different descriptors in a warp");
        for (int r = 0; r < 2; r++)
            for (int h = 0; h < 2; h++)
                for (int e = 0; e < 2; e++) {
                    const uint16_t x = (uint16_t)(v[2 * h + r] >> 16 * e);
                    p.a[r][2 * i + 8 * h + e] = flags & EMU_WG_F16 ? cu_f16(x) : cu_bf16(x);
                }
    }
    f->products.push_back(p);
}

void emu_wgmma_commit() {
    fiber *f = self();
    f->product_groups.push_back(std::move(f->products));
    f->products.clear();
    f->fenced = false;
}

void emu_wgmma_wait(int pending) {
    auto &g = self()->product_groups;
    const size_t n = g.size() > (size_t)pending ? g.size() - (size_t)pending : 0;
    for (size_t i = 0; i < n; i++)
        for (const group_product &p : g[i]) group_multiply(p);
    g.erase(g.begin(), g.begin() + (ptrdiff_t)n);
}

float emu_f16_to_f32(uint16_t v) { return fa_f16_to_f32(v); }
uint16_t emu_f32_to_f16(float f) { return f != f ? 0x7FFF : fa_f32_to_f16(f); }
