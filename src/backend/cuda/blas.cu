/* cuBLASLt, opened at run time: a machine that only decodes, or has no GPU, does without it. Types and values come from
 * its header, functions from the library that is found, 13 or 12.
 *
 * Row-major y [M, N] = x [M, K] w [N, K]^T is, to a library that counts columns first, y^T [N, M] = w^T' x^T: A is w,
 * seen as [K, N] and transposed, B is x, seen as [K, M], and C = D is y, seen as [N, M]; a bias of y's columns is one
 * of D's rows, which it can add.
 *
 * The library proposes an algorithm per shape, which takes tens of microseconds; what it proposed is kept in a table of
 * fixed size. Nothing else is made per call: three layouts and a descriptor per type get their values anew. So a
 * product can stand in a captured graph, and takes about 2 us of host time. */
#include "backend/cuda/cu.h"

extern "C" {
#include "base/alloc.h"
}

#ifdef FA_CUDA_EMU

/* No library: the kernel of gemm.cu computes everything. */
int cu_blas_create(fa_cuda *cu, fa_error *err) {
    (void)err;
    if (!cu->be.panel_bytes) cu->be.panel_bytes = CU_PANEL_BYTES;
    return 0;
}
void cu_blas_free(fa_cuda *cu) { (void)cu; }
void cu_blas_version(char *text, size_t size) {
    if (size) text[0] = 0;
}
int cu_blas_ready(const fa_cuda *cu, fa_error *err) { return (void)cu, (void)err, 0; }
bool cu_blas_product(fa_cuda *cu, const cu_product *p) { return (void)cu, (void)p, false; }

#else

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* X(function without its prefix cublasLt) */
#define FUNCTIONS(X)                                                                                                   \
    X(Create)                                                                                                          \
    X(Destroy)                                                                                                         \
    X(GetVersion)                                                                                                      \
    X(GetStatusString)                                                                                                 \
    X(MatmulDescCreate)                                                                                                \
    X(MatmulDescDestroy)                                                                                               \
    X(MatmulDescSetAttribute)                                                                                          \
    X(MatrixLayoutCreate)                                                                                              \
    X(MatrixLayoutDestroy)                                                                                             \
    X(MatrixLayoutSetAttribute)                                                                                        \
    X(MatmulPreferenceCreate)                                                                                          \
    X(MatmulPreferenceDestroy)                                                                                         \
    X(MatmulPreferenceSetAttribute)                                                                                    \
    X(MatmulAlgoGetHeuristic)                                                                                          \
    X(Matmul)

enum { WORKSPACE = 32 << 20, SLOTS = 512 /* shapes remembered */, PROBES = 8 };

/* What an algorithm depends on. No padding: compared as bytes. */
typedef struct shape {
    int64_t M, N, K, ldx, ldw, ldy;
    uint16_t x_align, w_align, y_align, bias_align; /* of the addresses: a power of two up to 256 */
    uint8_t type, y_type, add, bias;
    uint32_t zero;
} shape;

typedef struct slot {
    shape s;
    uint64_t used; /* when last; 0: empty */
    bool none;     /* the library has no algorithm */
    cublasLtMatmulAlgo_t algo;
} slot;

struct cu_blas {
    void *lib;
#define FA_X(f) decltype(&cublasLt##f) f;
    FUNCTIONS(FA_X)
#undef FA_X
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc[2][2]; /* [bf16][bias] */
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulPreference_t pref;
    void *space; /* [WORKSPACE] device */
    bool opened;
    fa_error missing; /* code != 0: why there is no library; message for whoever needs it */
    uint64_t clock;
    slot table[SLOTS];
};

/* ---- opening ---- */

static void *open_library(void) {
    static const char *const dir[] = {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/lib/",
                                      "/usr/local/cuda/targets/x86_64-linux/lib/", "/opt/cuda/lib64/"};
    static const char *const name[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    char path[256];
    for (const char *d : dir) {
        for (const char *n : name) {
            snprintf(path, sizeof path, "%s%s", d, n);
            /* NODELETE: taking it down and up again for every engine costs more than its address space. */
            void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
            if (lib) return lib;
        }
    }
    return NULL;
}

static int find_functions(struct cu_blas *b) {
    b->lib = open_library();
    if (!b->lib)
        return fa_fail(
            &b->missing, FFAI_ENOTSUP,
            "prefill on the GPU needs cuBLASLt of CUDA 12 or 13, which was not found: libcublasLt.so.13, .so.12 "
            "or .so, in the loader's paths and under /usr/local/cuda and /opt/cuda; LD_LIBRARY_PATH can name its "
            "folder");
#define FA_X(f)                                                                                                        \
    b->f = (decltype(&cublasLt##f))dlsym(b->lib, "cublasLt" #f);                                                       \
    if (!b->f)                                                                                                         \
        return fa_fail(&b->missing, FFAI_ENOTSUP, "prefill on the GPU: the cuBLASLt that was found lacks cublasLt" #f);
    FUNCTIONS(FA_X)
#undef FA_X
    return 0;
}

/* Its version counts 10000 major + 100 minor + patch (old ones: 1000, 100). */
void cu_blas_version(char *text, size_t size) {
    void *lib = open_library();
    const auto version = lib ? (decltype(&cublasLtGetVersion))dlsym(lib, "cublasLtGetVersion") : NULL;
    text[0] = 0;
    if (version) {
        const size_t v = version(), major = v >= 100000 ? v / 10000 : v / 1000,
                     rest = v - major * (v >= 100000 ? 10000 : 1000);
        snprintf(text, size, "%zu.%zu.%zu", major, rest / 100, rest % 100);
    }
    if (lib) dlclose(lib);
}

static int failed(struct cu_blas *b, cublasStatus_t rc, const char *what) {
    return fa_fail(&b->missing, FFAI_ENOTSUP, "prefill on the GPU: cuBLASLt %zu: %s: %s", b->GetVersion(), what,
                   b->GetStatusString(rc));
}

/* Descriptors for f32 and bf16, without and with a bias; layouts and preferences that calls fill in. */
static int make_descriptors(struct cu_blas *b) {
    const cublasOperation_t trans = CUBLAS_OP_T;
    const cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    const uint64_t bytes = WORKSPACE;
    cublasStatus_t rc = CUBLAS_STATUS_SUCCESS;
    for (int i = 0; i < 4 && !rc; i++) {
        cublasLtMatmulDesc_t *d = &b->desc[i / 2][i % 2];
        rc = b->MatmulDescCreate(d, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        if (!rc) rc = b->MatmulDescSetAttribute(*d, CUBLASLT_MATMUL_DESC_TRANSA, &trans, sizeof trans);
        if (!rc && i % 2) rc = b->MatmulDescSetAttribute(*d, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias);
    }
    if (!rc) rc = b->MatrixLayoutCreate(&b->w, CUDA_R_32F, 1, 1, 1);
    if (!rc) rc = b->MatrixLayoutCreate(&b->x, CUDA_R_32F, 1, 1, 1);
    if (!rc) rc = b->MatrixLayoutCreate(&b->y, CUDA_R_32F, 1, 1, 1);
    if (!rc) rc = b->MatmulPreferenceCreate(&b->pref);
    if (!rc)
        rc = b->MatmulPreferenceSetAttribute(b->pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
    return rc ? failed(b, rc, "descriptors") : 0;
}

/* The library takes tenths of a second to open, so that waits until a record needs it; its memory does not, so that
 * later allocations leave room for it. */
int cu_blas_create(fa_cuda *cu, fa_error *err) {
    struct cu_blas *b = FA_NEW(struct cu_blas);
    if (!cu->be.panel_bytes) cu->be.panel_bytes = CU_PANEL_BYTES;
    if (!b) return fa_fail(err, FFAI_ENOMEM, "%s: out of memory", cu->dev->name);
    cu->blas = b;
    b->space = cu->dev->d.alloc(&cu->dev->d, WORKSPACE, "workspace of matrix products", err);
    return b->space ? 0 : FFAI_ENOMEM;
}

int cu_blas_ready(const fa_cuda *cu, fa_error *err) {
    struct cu_blas *b = cu->blas;
    if (!b->opened) {
        b->opened = true;
        if (!find_functions(b)) {
            cublasStatus_t rc = b->Create(&b->handle);
            if (rc) failed(b, rc, "cublasLtCreate");
        }
        if (!b->missing.code) make_descriptors(b);
    }
    return b->missing.code ? fa_fail(err, b->missing.code, "%s", b->missing.msg) : 0;
}

void cu_blas_free(fa_cuda *cu) {
    struct cu_blas *b = cu->blas;
    if (!b) return;
    if (b->space) cu->dev->d.release(&cu->dev->d, b->space);
    for (int i = 0; i < 4; i++)
        if (b->desc[i / 2][i % 2]) b->MatmulDescDestroy(b->desc[i / 2][i % 2]);
    if (b->w) b->MatrixLayoutDestroy(b->w);
    if (b->x) b->MatrixLayoutDestroy(b->x);
    if (b->y) b->MatrixLayoutDestroy(b->y);
    if (b->pref) b->MatmulPreferenceDestroy(b->pref);
    if (b->handle) b->Destroy(b->handle);
    if (b->lib) dlclose(b->lib);
    fa_free(b);
    cu->blas = NULL;
}

/* ---- products ---- */

static cudaDataType_t library_type(uint8_t type) { return type == FA_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

static uint16_t alignment(const void *p) {
    uintptr_t a = (uintptr_t)p;
    return (uint16_t)(!a ? 256 : (a & -a) > 256 ? 256 : (a & -a));
}

static shape shape_of(const cu_product *p) {
    shape s;
    memset(&s, 0, sizeof s);
    s.M = p->M, s.N = p->N, s.K = p->K, s.ldx = p->ldx, s.ldw = p->ldw, s.ldy = p->ldy;
    s.x_align = alignment(p->x), s.w_align = alignment(p->w), s.y_align = alignment(p->y);
    s.bias_align = alignment(p->bias);
    s.type = p->type, s.y_type = p->y_type, s.add = p->add, s.bias = p->bias != NULL;
    return s;
}

/* rows, cols as the library counts them */
static cublasStatus_t set_layout(struct cu_blas *b, cublasLtMatrixLayout_t l, uint8_t type, int64_t rows, int64_t cols,
                                 int64_t ld) {
    const uint32_t t = (uint32_t)library_type(type);
    const uint64_t r = (uint64_t)rows, c = (uint64_t)cols;
    cublasStatus_t rc = b->MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_TYPE, &t, sizeof t);
    if (!rc) rc = b->MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ROWS, &r, sizeof r);
    if (!rc) rc = b->MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_COLS, &c, sizeof c);
    if (!rc) rc = b->MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof ld);
    return rc;
}

/* The library's first proposal for what the layouts and `desc` hold. */
static void choose(struct cu_blas *b, cublasLtMatmulDesc_t desc, slot *t) {
    const uint32_t a = t->s.w_align, x = t->s.x_align, y = t->s.y_align;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    b->MatmulPreferenceSetAttribute(b->pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof a);
    b->MatmulPreferenceSetAttribute(b->pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &x, sizeof x);
    b->MatmulPreferenceSetAttribute(b->pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &y, sizeof y);
    b->MatmulPreferenceSetAttribute(b->pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &y, sizeof y);
    cublasStatus_t rc = b->MatmulAlgoGetHeuristic(b->handle, desc, b->w, b->x, b->y, b->y, b->pref, 1, &found, &n);
    t->none = rc || n < 1 || found.state || found.workspaceSize > WORKSPACE;
    if (!t->none) t->algo = found.algo;
}

/* The shape's slot: its own, or the least recently used one of those it may be in, to be filled (used 0). */
static slot *slot_of(struct cu_blas *b, const shape *s) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < sizeof *s; i++) h = (h ^ ((const uint8_t *)s)[i]) * 0x100000001B3u;
    slot *oldest = NULL;
    for (uint64_t i = 0; i < PROBES; i++) {
        slot *t = &b->table[((h >> 32) + i) % SLOTS];
        if (t->used && !memcmp(&t->s, s, sizeof *s)) return t;
        if (!oldest || t->used < oldest->used) oldest = t;
    }
    oldest->used = 0;
    oldest->s = *s;
    return oldest;
}

bool cu_blas_product(fa_cuda *cu, const cu_product *p) {
    struct cu_blas *b = cu->blas;
    if (cu_blas_ready(cu, &cu->err)) return true;
    const shape s = shape_of(p);
    const cublasLtMatmulDesc_t desc = b->desc[s.type == FA_BF16][s.bias];
    slot *t = slot_of(b, &s);
    cublasStatus_t rc = set_layout(b, b->w, s.type, s.K, s.N, s.ldw);
    if (!rc) rc = set_layout(b, b->x, s.type, s.K, s.M, s.ldx);
    if (!rc) rc = set_layout(b, b->y, s.y_type, s.N, s.M, s.ldy);
    if (!rc && s.bias)
        rc = b->MatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
    if (!rc && !t->used) choose(b, desc, t);
    if (!rc) t->used = ++b->clock;
    if (!rc && t->none) return false;
    cu_inject(cu, "cublasLt");
    if (cu->err.code) return true;
    if (!rc) {
        const float one = 1, beta = s.add ? 1 : 0;
        if (cu->profile) cu_profile_begin(cu, s.type == FA_BF16 ? "cublasLt bf16" : "cublasLt f32");
        rc = b->Matmul(b->handle, desc, &one, p->w, b->w, p->x, b->x, &beta, p->y, b->y, p->y, b->y, &t->algo, b->space,
                       WORKSPACE, cu->stream);
        if (cu->profile) cu_profile_end(cu);
    }
    if (rc)
        cu_fail(cu, FFAI_EINTERNAL, "cuBLASLt: product of [%lld, %lld] and [%lld, %lld]: %s", (long long)s.M,
                (long long)s.K, (long long)s.N, (long long)s.K, b->GetStatusString(rc));
    return true;
}

#endif
