/* A device with memory of its own, for loaders, caches and engines. Host code holds addresses of device memory and
 * never follows them. The CPU has none of this: a NULL device means host memory.
 *
 * One object belongs to one thread at a time. Errors name the device; after a fault that the device does not survive
 * every call fails with the first fault's message, and the process goes on. */
#ifndef FA_BACKEND_DEVICE_H
#define FA_BACKEND_DEVICE_H

#include "backend/backend.h"

/* `rows` rows of row_bytes each, contiguous in host memory, to rows `pitch` bytes apart on the device. */
typedef struct fa_copy {
    void *dev;
    const void *host;
    size_t rows, row_bytes, pitch; /* the bytes between rows, and those after the last one, become zero */
} fa_copy;

/* What `ffai devices` tells. */
typedef struct fa_device_facts {
    char model[128], driver[64], arch[32]; /* "NVIDIA H100 80GB HBM3", "580.159 (CUDA 13.0)", "sm_90" */
    char cublaslt[32], nccl[32]; /* versions of the libraries that are opened at run time: "13.0.2"; "": not found */
    int n_unit;                  /* multiprocessors */
    int64_t mem_bytes, mem_free_bytes;
} fa_device_facts;

/* Measured: bytes per second of a read stream, operations per second of matrix products. */
typedef struct fa_device_rates {
    double read_bytes_s, bf16_ops_s, f32_ops_s;
} fa_device_rates;

typedef struct fa_backend_opts {
    bool exact;
    int n_slot;            /* sequences whose sampled tokens it keeps */
    int max_ctx;           /* tokens of one sequence */
    int64_t vocab;         /* width of logits rows, for sampling */
    const fa_batch *batch; /* the batch that all runs use: its block's address and size */
} fa_backend_opts;

/* What a test can make fail. */
enum { FA_INJECT_ALLOC, FA_INJECT_LAUNCH, FA_INJECT_FAULT, FA_INJECT_HEAP, FA_INJECT_COUNT };

struct fa_device {
    const char *name; /* "cuda:0" */
    /* 256-byte aligned, contents undefined; NULL and err when it does not fit. what: names it in the message. */
    void *(*alloc)(fa_device *d, size_t bytes, const char *what, fa_error *err);
    void (*release)(fa_device *d, void *p); /* NULL is fine; waits for what runs */
    int (*memory)(fa_device *d, int64_t *total, int64_t *avail, fa_error *err);
    /* Blocking; they wait for what runs on the device first. */
    int (*read)(fa_device *d, void *host, const void *dev, size_t bytes, fa_error *err);
    int (*write)(fa_device *d, void *dev, const void *host, size_t bytes, fa_error *err);
    int (*fill)(fa_device *d, void *dev, int byte, size_t bytes, fa_error *err);
    /* Many copies at once: several reader threads move pieces through pinned buffers, so that files stream in. */
    int (*upload)(fa_device *d, const fa_copy *list, size_t n, fa_error *err);
    /* Random contents for the planes of w, whose shape, format and addresses are set: the values of fa_synth_matrix. */
    int (*synth)(fa_device *d, const fa_weight *w, uint64_t seed, fa_error *err);
    /* Address space of at most *bytes (rounded; less when it cannot be had) and memory for [from, to) of it, multiples
     * of FA_ARENA_STEP. Addresses never move. */
    void *(*reserve)(fa_device *d, size_t *bytes, fa_error *err);
    int (*commit)(fa_device *d, void *base, size_t from, size_t to);
    void (*unreserve)(fa_device *d, void *base, size_t bytes, size_t committed);
    int (*backend)(fa_device *d, fa_backend **out, const fa_backend_opts *o, fa_error *err);
    int (*rates)(fa_device *d, fa_device_rates *out, fa_error *err); /* takes about a second */
    /* Tests only: the n-th (1: the next) allocation fails (arena memory counts), launch fails, or launch is preceded by
     * a kernel that faults, which the device does not survive; or the module's n-th allocation of host memory fails. A
     * graph counts as one launch. 0: turns it off. */
    void (*inject)(fa_device *d, int what, long n);
    void (*free)(fa_device *d); /* after all that it gave; returns its memory to the driver */
};

/* What a module offers: libffai_cuda.so exports `const fa_module *fa_module_get(void)`. */
enum { FA_MODULE_VERSION = 2 };

typedef struct fa_module {
    uint32_t version, rec_bytes; /* FA_MODULE_VERSION, sizeof(fa_rec): both sides were built from one source */
    /* Number of devices; < 0 with the reason when there is no driver, it is too old, or there is none. */
    int (*count)(fa_error *err);
    int (*facts)(int index, fa_device_facts *out, fa_error *err);
    int (*open)(fa_device **out, int index, fa_error *err);
} fa_module;

#endif
