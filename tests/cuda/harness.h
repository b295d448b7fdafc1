/* Operations on a device against the same operations on the CPU (exact, f32), which define them. A test makes weights,
 * caches and a batch that exist on both sides, records the operations once for each side, and the harness runs both
 * from the same memory (arenas full of 0xFF bytes, which are NaN) and compares what the test names.
 *
 *     static void body(fa_cx *cx, int side, void *arg) {
 *         my_case *c = arg;
 *         fa_tensor x = hn_input(c->h, cx, side, c->x, 3, 64, FA_F32);
 *         fa_tensor y = fa_linear_op(cx, x, &c->w->at[side]);
 *         hn_expect(c->h, side, "y", y);
 *     }
 *     harness *h = hn_open(&(hn_opts){.exact = true});
 *     hn_case(h, "q4_0 3 rows");                         // what failures are called; frees the case before
 *     hn_seqs(h, (hn_seq[]){{.n = 3}}, 1);               // batch: one sequence with three new rows
 *     c.w = hn_make_linear(h, (fa_weight){.fmt = FA_FMT_Q4_0}, 40, 64, true);
 *     c.x = hn_floats(h, 3 * 64, 1);
 *     hn_run(h, body, &c);
 *     hn_close(h);
 *
 * The module is $FFAI_CUDA_MODULE or the emulated one (tests/cuda/emu). On a machine where the named module finds no
 * GPU the program ends with status 77. cmocka reports failures. */
#ifndef TESTS_CUDA_HARNESS_H
#define TESTS_CUDA_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/device.h"
#include "base/rng.h"
#include "ops/internal.h"

typedef struct harness harness;

enum { HN_CPU, HN_DEV }; /* sides */

/* 0: the default in brackets */
typedef struct hn_opts {
    bool exact;                   /* precision of the device's backend; the CPU side is always exact */
    int max_rows;                 /* [600] of a batch */
    int max_seq;                  /* [40] */
    int max_ctx;                  /* [2048] tokens of one sequence */
    int n_group;                  /* [1] page groups */
    int32_t window[FA_MAX_GROUP]; /* of each group; 0: none */
    int64_t vocab;                /* [1000] for sampling */
} hn_opts;

/* Opens module, device 0 and both backends. One harness at a time. */
harness *hn_open(const hn_opts *o);
void hn_close(harness *h);

/* Begins a case: frees what the one before made. The text names it in failures. */
void hn_case(harness *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

fa_device *hn_device(harness *h);
fa_backend *hn_backend(harness *h, int side);
fa_batch *hn_batch(harness *h, int side); /* to change what hn_seqs made */
const fa_module *hn_module(harness *h);
/* What tests use: $FFAI_CUDA_MODULE, else the emulated one. */
const char *hn_module_path(void);
const char *hn_source_dir(void); /* $FFAI_SOURCE_DIR, or where the test was built */
bool hn_emulated(void);
/* The emulator's switches (tests/cuda/emu/emu_rt.cpp); -1 on a real GPU. */
long long hn_emu_control(const char *what, long long value);

/* ---- contents; all live until the next hn_case ---- */
fa_rng *hn_rng(harness *h); /* seeded by the case's text */
/* n random floats in [-scale, scale), host memory */
float *hn_floats(harness *h, int64_t n, float scale);
int32_t *hn_ints(harness *h, int64_t n, int32_t below);
void *hn_host(harness *h, size_t bytes);                     /* zeroed */
void *hn_upload(harness *h, const void *host, size_t bytes); /* device memory that holds a copy */

/* fmt, bits, group, scale_dtype of each format that exists, all affine widths and groups. */
extern const fa_weight hn_kinds[];
extern const int hn_n_kinds;
typedef struct hn_weight {
    fa_weight at[2]; /* by side; device rows are 16-byte aligned with zeros behind each */
} hn_weight;
typedef struct hn_linear {
    fa_linear at[2];
} hn_linear;
typedef struct hn_norm {
    fa_norm at[2];
} hn_norm;
/* Random codes with believable scales: values of roughly [-1, 1]. kind: as in hn_kinds. */
hn_weight *hn_make_weight(harness *h, fa_weight kind, int64_t rows, int64_t cols);
hn_linear *hn_make_linear(harness *h, fa_weight kind, int64_t rows, int64_t cols, bool bias);
hn_norm *hn_make_norm(harness *h, int64_t dim, float offset, bool weight);
/* Can rows of cols values be stored in this format? */
bool hn_fits(fa_weight kind, int64_t cols);

/* ---- batch ---- */
typedef struct hn_seq {
    int past;  /* positions in the cache already */
    int n;     /* new rows */
    int n_out; /* of them, the last ones: rows whose logits are wanted [1; -1: none] */
} hn_seq;
/* Fills the batches of both sides as an engine does: sequences in this order, random tokens below vocab, slots and
 * physical pages in a shuffled order. */
void hn_seqs(harness *h, const hn_seq *seq, int n_seq);

/* A layer's cache, after hn_seqs: random keys and values at the past positions, NaN everywhere else. */
typedef struct hn_kv {
    fa_kv at[2];
} hn_kv;
hn_kv *hn_make_kv(harness *h, int n_head, int head_dim, fa_dtype type, int group);

/* Recurrent states, after hn_seqs. Where each sequence's state comes from and goes to, and after which of its rows a
 * copy is kept; pieces for scans are cut as an engine does. */
typedef struct hn_recur {
    int in, out; /* in -1: zeros */
    int keep[2]; /* rows of the sequence, counted from 1; 0: none */
} hn_recur;
/* A layer's states: random where sequences begin and where nobody writes, NaN in the others. After a run those that
 * were written are compared, and the others must be unchanged. r: as many as sequences. */
typedef struct hn_states {
    fa_state at[2];
    int64_t n_conv, n_scan, conv_at; /* floats of each state that are compared; where the first of them is */
} hn_states;
hn_states *hn_make_states(harness *h, int64_t n_conv, int64_t n_scan, const hn_recur *r);

/* ---- recording, running, comparing ---- */
/* Inside a body: an input tensor [d0, d1] of F32 or BF16 with values x, written before every run. */
fa_tensor hn_input(harness *h, fa_cx *cx, int side, const float *x, int64_t d0, int64_t d1, fa_dtype type);
/* Inside a body, on both sides in the same order: t is compared after the run. */
void hn_expect(harness *h, int side, const char *name, fa_tensor t);
/* Inside a body: the cache is compared at the new positions, and must be unchanged everywhere else. */
void hn_expect_kv(harness *h, int side, hn_kv *kv);

/* Limits: of the largest error over the root mean square of the CPU's values, and of sum(err^2) / sum(cpu^2). By
 * default 1e-4 and 1e-9 in exact mode, 5e-2 and 2e-4 otherwise. Stay until changed. */
void hn_limits(harness *h, double max_err, double nmse);
/* Runs of the device program [1]: with more the program is marked as one that comes again, so that graphs are captured
 * and replayed; each run starts from the same memory and is compared. */
void hn_repeats(harness *h, int n);

typedef void hn_body(fa_cx *cx, int side, void *arg);
/* Records and runs body on both sides and compares. */
void hn_run(harness *h, hn_body *body, void *arg);
/* The same, but recording on the device must fail: returns the message. */
const char *hn_refused(harness *h, hn_body *body, void *arg);
/* Only the device: begins the run and returns its status. */
int hn_run_device(harness *h, hn_body *body, void *arg, fa_error *err);
/* A tensor of the last run as floats, in memory of the case. */
float *hn_values(harness *h, int side, fa_tensor t);
/* Compares n values; fails the test when they differ by more than the limits. */
void hn_compare(harness *h, const char *name, const float *want, const float *got, int64_t n);

#endif
