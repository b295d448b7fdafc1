/* The CUDA backend's inside: what op files share. docs/cuda.md tells how it works and how a kernel is added.
 *
 * A record is launched by its operation's `launch`, which puts one or more kernels on cu->stream and waits for nothing.
 * Everything that changes from step to step lies in device memory at addresses that do not change, so that a captured
 * graph can be replayed: kernel arguments may depend on the record and on the host fields of the batch only. */
#ifndef FA_CUDA_CU_H
#define FA_CUDA_CU_H

#include "backend/cuda/cu_ptx.h"

extern "C" {
#include "backend/device.h"
#include "base/err.h"
}

enum {
    CU_WARP = 32,
    CU_FEW = 16,              /* input rows up to which linear records stream the weight (stream*.cu); more: many.cu */
    CU_COUNTERS = 1 << 16,    /* see fa_cuda.counter */
    CU_ATTEND_TILE = 64,      /* most query rows of an entry of the batch's tile table */
    CU_PANEL_BYTES = 64 << 20 /* fa_backend.panel_bytes, unless set */
};

/* fa_kvq_groups for kernels, and for the sizes of their shared memory. */
__host__ __device__ constexpr int cu_kvq_groups(int dim) { return (dim + FA_KVQ_GROUP - 1) / FA_KVQ_GROUP; }

/* The batch with device addresses; passed to kernels by value. Fields as in fa_batch. */
typedef struct cu_batch {
    int n_tok, n_seq, n_out, n_dec, max_q, n_tile, n_axes, page_stride, n_adapt, n_cut;
    const int32_t *tok, *pos, *row_start, *row_seq, *slot, *len, *rope_len, *place, *kv_hi, *out_row, *tile_seq,
        *tile_row;
    const int32_t *kv_lo[FA_MAX_GROUP], *page[FA_MAX_GROUP];
    const float *adapt;
    const int32_t *state_in, *state_out, *keep, *cut, *seq_cut; /* n_cut > 0 */
    const float *embd;                                          /* NULL: none */
    const int32_t *embd_row;
    const uint64_t *tree;
    int32_t *last; /* [n_slot] the token picked last for each slot */
} cu_batch;

typedef struct cu_device cu_device; /* device.cu */

typedef struct fa_cuda {
    fa_backend be; /* first */
    cu_device *dev;
    cudaStream_t stream;
    int n_sm;        /* multiprocessors */
    int arch;        /* 90 for sm_90 */
    size_t smem_max; /* dynamic shared memory that a block can ask for */
    bool pdl;        /* launches overlap with the end of the one before (cu_pdl_wait) */
    bool capturing;  /* launches go into a graph */
    int n_slot, max_ctx;
    int64_t vocab;
    /* [CU_COUNTERS] zeros between kernels: blocks that work on one thing count themselves, and the last one, which
     * finishes it, sets its counter back. */
    uint32_t *counter;
    int32_t *last;        /* [n_slot + 1] the token picked last for each slot; cu_batch.last */
    fa_error err;         /* of the launches since it was last looked at; the first wins */
    const fa_rec *rec;    /* the record that is being launched, for messages and profiles; NULL: none */
    const fa_rec *digits; /* the record (MOE) whose input rows the launch before has made digits of (digits.cuh) */
    const fa_rec *gated;  /* the record (LINEAR_ADD) whose input rows lie in its work memory, not yet normalised, */
    const fa_gate *gate;  /* ... and what normalises them: one group of columns */
    char isa[16];
    struct cu_stage *stage;         /* backend.cu: how batches get to the device */
    uint8_t *fetch;                 /* pinned, for results */
    struct cu_graph *graphs;        /* graph.cu: all that were built */
    struct cu_profile *profile;     /* NULL unless this step is profiled */
    struct cu_profile *profile_mem; /* profile.cu: its memory, kept between steps */
    struct cu_ranges *ranges;       /* profile.cu: NVTX; NULL when no tool listens */
    struct cu_blas *blas;           /* blas.cu */
    struct cu_sampler *sampler;     /* sample.cu */
} fa_cuda;

/* An operation. work: bytes of rec->work, or < 0 with *err when there is no kernel for this record; NULL: none needed.
 */
typedef struct cu_op {
    void (*launch)(fa_cuda *cu, const fa_rec *r, const cu_batch *b);
    int64_t (*work)(const fa_cuda *cu, const fa_rec *r, fa_error *err);
} cu_op;

extern const cu_op cu_op_rope_table, cu_op_norm, cu_op_head_norm, cu_op_rope, cu_op_append, cu_op_glu, cu_op_add,
    cu_op_rows, cu_op_softcap, cu_op_scale, cu_op_clamp, cu_op_row_gate, cu_op_cols, cu_op_pick_cols; /* basic.cu */
extern const cu_op cu_op_embed;                                                                       /* dequant.cu */
extern const cu_op cu_op_linear, cu_op_linear_add, cu_op_norm_qkv, cu_op_norm_mlp_up;                 /* linear.cu */
extern const cu_op cu_op_attend;                                                                      /* attend.cu */
extern const cu_op cu_op_lora, cu_op_lora_embed;                                                      /* lora.cu */
extern const cu_op cu_op_route, cu_op_moe;                        /* route.cu, moe.cu */
extern const cu_op cu_op_conv, cu_op_gate_norm, cu_op_scale_cols; /* conv.cu */
extern const cu_op cu_op_ssm1, cu_op_ssd, cu_op_delta;            /* ssm1.cu, scan_rows.cu */

/* linear.cu sends a linear record to one of these by its number of input rows. */
int64_t cu_stream_work(const fa_cuda *cu, const fa_rec *r, fa_error *err); /* stream.cu: at most CU_FEW rows */
void cu_stream_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b);
/* The first 2 or 3 of n records at once: a norm, a linear layer behind it, and the choice of experts if that was the
 * router; of few rows. 0: they are something else, nothing is launched. */
int cu_stream_normed(fa_cuda *cu, const fa_rec *r, int n);
int64_t cu_many_work(const fa_cuda *cu, const fa_rec *r, fa_error *err); /* many.cu: more */
void cu_many_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b);

/* dequant.cu: rows [row, row + n) of w as F32 or BF16, [n, cols] contiguous. */
void cu_dequant(fa_cuda *cu, const fa_weight *w, int64_t row, int64_t n, void *out, fa_dtype type);
/* synth.cu: what fa_device.synth does, on a stream. */
int cu_synth(cudaStream_t stream, const fa_weight *w, uint64_t seed, fa_error *err);
/* Is w a format that the backend computes? device rows must be 16-byte aligned. */
int cu_weight_ok(const fa_weight *w, fa_error *err); /* dequant.cu */

/* gemm.cu: y [M, N] = x [M, K] w [N, K]^T (+ bias [N]) (+ y), rows ld* elements apart. type: of x and w, F32 (never
 * TF32) or BF16; sums are f32. */
typedef struct cu_product {
    int64_t M, N, K, ldx, ldw, ldy;
    const void *x, *w;
    void *y;
    const float *bias;    /* or NULL; y F32 only */
    uint8_t type, y_type; /* fa_dtype: F32 or BF16 */
    bool add;             /* to what y holds */
} cu_product;

void cu_gemm(fa_cuda *cu, const cu_product *p);
void cu_gemm_plain(fa_cuda *cu, const cu_product *p); /* by our own kernel: what the library computes, any shape */
int cu_rates(cu_device *dev, fa_device_rates *out, fa_error *err); /* rates.cu */

/* blas.cu: the matrix library (cuBLASLt), opened when the first record needs it. */
int cu_blas_create(fa_cuda *cu, fa_error *err);
void cu_blas_free(fa_cuda *cu);
void cu_blas_version(char *text, size_t size);          /* of the library that would be used; "" without one */
void cu_nccl_version(char *text, size_t size);          /* nccl.cu: the same */
int cu_blas_ready(const fa_cuda *cu, fa_error *err);    /* < 0: why there is none */
bool cu_blas_product(fa_cuda *cu, const cu_product *p); /* false: it has no way for this shape */

/* sample.cu */
int cu_sampler_create(fa_cuda *cu, fa_error *err);
void cu_sampler_free(fa_cuda *cu);
int cu_history(fa_backend *be, int slot, const int32_t *ids, int64_t n, fa_error *err);
int cu_pick(fa_backend *be, fa_tensor logits, const fa_pick_opts *o, int n, fa_error *err);
int cu_picked(fa_backend *be, int32_t *ids, int n, fa_error *err);

/* device.cu: the object behind fa_device. */
struct cu_device {
    fa_device d; /* first */
    int index, n_sm, arch;
    size_t smem_max;
    char name[16];
    cudaStream_t stream;          /* of copies and of every backend: work on one device object is in order */
    fa_error lost;                /* code != 0: a fault that the device did not survive */
    struct cu_vm *vm;             /* vm.cu: NULL until address space is asked for */
    struct cu_upload *up;         /* upload.cu: NULL until something is uploaded */
    long inject[FA_INJECT_COUNT]; /* see fa_device.inject */
};

/* A CUDA call's result as an error that names the device and what was done; marks the device as lost when no later call
 * can succeed. 0 for cudaSuccess. */
int cu_check(cu_device *dev, cudaError_t rc, const char *what, fa_error *err);
/* At the beginning of every entry: fails when the device is lost, makes it this thread's current one. */
int cu_enter(cu_device *dev, fa_error *err);
/* Tests: is this the call that was to fail? */
bool cu_injected(cu_device *dev, int what);

/* upload.cu */
int cu_upload(fa_device *d, const fa_copy *list, size_t n, fa_error *err);
void cu_upload_free(cu_device *dev);
/* vm.cu */
void *cu_reserve(fa_device *d, size_t *bytes, fa_error *err);
int cu_commit(fa_device *d, void *base, size_t from, size_t to);
void cu_unreserve(fa_device *d, void *base, size_t bytes, size_t committed);
void cu_vm_free(cu_device *dev);
/* What the copy engine needs to know of an array of 2-byte numbers: elements of the four dimensions, the first
 * contiguous; bytes from one to the next of the others; the box that is copied at a time, in rows of 128 bytes with the
 * swizzle of wgmma. false: the driver does not have it or does not take this. */
bool cu_tensor_map(cu_device *dev, CUtensorMap *m, const void *p, const int64_t dim[4], const int64_t stride[3],
                   const int box[4]);

/* backend.cu */
static inline const char *cu_op_name(int op) { return fa_op_name((fa_op)op); }
int cu_backend_create(fa_device *d, fa_backend **out, const fa_backend_opts *o, fa_error *err);
/* All records of a program, one after the other. tap: where TAP records go, NULL: nowhere. */
int cu_run_plain(fa_cuda *cu, const fa_program *prog, const cu_batch *b, const fa_run_opts *tap, fa_error *err);
/* The first error of the launches since the last call, if there is one. */
int cu_take_error(fa_cuda *cu, fa_error *err);

/* graph.cu */
int cu_graph_run(fa_cuda *cu, fa_program *prog, const cu_batch *b, fa_error *err);
void cu_graph_forget(fa_backend *be, fa_program *prog);
void cu_graph_free(fa_cuda *cu); /* all of them */

/* profile.cu */
int cu_profile_start(fa_cuda *cu, fa_error *err);
/* Adds what was measured to opts; waits for the step. */
int cu_profile_stop(fa_cuda *cu, const fa_program *prog, const fa_run_opts *opts, fa_error *err);
void cu_profile_record(fa_cuda *cu); /* cu->rec begins */
void cu_profile_free(fa_cuda *cu);
void cu_ranges_create(fa_cuda *cu);
void cu_ranges_record(fa_cuda *cu, const fa_rec *r); /* NULL: the step ends */
void cu_ranges_free(fa_cuda *cu);

/* ---- launching ---- */

/* Remembers a failed launch; the step fails with the first one. */
void cu_launch_failed(fa_cuda *cu, const char *kernel, cudaError_t rc);
/* The same with a message, in front of which go the device, the operation and its layer. */
void cu_fail(fa_cuda *cu, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Tests: makes this launch fail, or puts a kernel that faults in front of it, when that was asked for. */
void cu_inject_launch(fa_cuda *cu, const char *kernel);
static inline void cu_inject(fa_cuda *cu, const char *kernel) {
    if (cu->dev->inject[FA_INJECT_LAUNCH] | cu->dev->inject[FA_INJECT_FAULT]) cu_inject_launch(cu, kernel);
}
/* Profile: called around every launch when cu->profile is set. */
void cu_profile_begin(fa_cuda *cu, const char *kernel);
void cu_profile_end(fa_cuda *cu);

template <typename... P, typename... A>
static inline void cu_launch_as(fa_cuda *cu, const char *name, void (*kernel)(P...), dim3 grid, int threads,
                                size_t smem, A... args) {
    if (cu->err.code || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    cu_inject(cu, name);
    if (cu->err.code) return;
    if (cu->profile) cu_profile_begin(cu, name);
#ifdef FA_CUDA_EMU
    cudaError_t rc =
        emu_launch(name, cu->stream, grid, dim3((unsigned)threads), smem, [=] { kernel(static_cast<P>(args)...); });
#else
    cudaError_t rc = cudaSuccess;
    if (smem > 32 * 1024) /* 48 KiB need no leave, but the kernel's own arrays count too */
        rc = cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem);
    cudaLaunchConfig_t cfg = {};
    cudaLaunchAttribute attr[1] = {};
    cfg.gridDim = grid;
    cfg.blockDim = dim3((unsigned)threads);
    cfg.dynamicSmemBytes = smem;
    cfg.stream = cu->stream;
    attr[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr[0].val.programmaticStreamSerializationAllowed = 1;
    cfg.attrs = attr;
    cfg.numAttrs = cu->pdl && !cu->profile ? 1 : 0;
    if (rc == cudaSuccess) rc = cudaLaunchKernelEx(&cfg, kernel, static_cast<P>(args)...);
#endif
    if (rc != cudaSuccess) cu_launch_failed(cu, name, rc);
    if (cu->profile) cu_profile_end(cu);
}
/* CU_LAUNCH(cu, kernel, grid, threads, shared bytes, arguments...): kernel in parentheses when it has template commas.
 */
#define CU_LAUNCH(cu, kernel, ...) cu_launch_as(cu, #kernel, kernel, __VA_ARGS__)

static inline unsigned cu_blocks(int64_t n, int64_t per) { return (unsigned)((n + per - 1) / per); }

#endif
