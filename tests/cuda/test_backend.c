/* The GPU module as a device and a runner of programs: messages, memory, uploads, address space, plain runs and graphs,
 * taps, fetches, profiles, injected failures and a lost device. Kernels have tests of their own.
 */
#define _DEFAULT_SOURCE
#include "cuda/harness.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

static const fa_module *module;
static long long allocs; /* of the emulated device before it was opened */

static fa_device *open_device(void) {
    fa_error err;
    fa_device *d = NULL;
    allocs = hn_emu_control("allocs", 0);
    int rc = module->open(&d, 0, &err);
    if (rc) fail_msg("%s", err.msg);
    return d;
}

/* Everything that was given comes back. */
static void close_device(fa_device *d) {
    d->free(d);
    if (hn_emulated()) assert_int_equal(hn_emu_control("allocs", 0), allocs);
}

static void assert_says(const fa_error *err, const char *part) {
    if (!strstr(err->msg, part)) fail_msg("message \"%s\" lacks \"%s\"", err->msg, part);
}

/* ---- device ---- */

static void test_module(void **state) {
    (void)state;
    fa_error err;
    fa_device_facts facts;
    fa_device *d;
    assert_int_equal(module->version, FA_MODULE_VERSION);
    assert_int_equal(module->rec_bytes, sizeof(fa_rec));
    int n = module->count(&err);
    assert_true(n >= 1);
    assert_int_equal(module->facts(0, &facts, &err), 0);
    assert_true(facts.model[0] && strncmp(facts.arch, "sm_", 3) == 0 && strstr(facts.driver, "CUDA"));
    assert_non_null(memchr(facts.cublaslt, 0, sizeof facts.cublaslt));
    assert_non_null(memchr(facts.nccl, 0, sizeof facts.nccl));
    assert_true(facts.n_unit > 0 && facts.mem_bytes > 0 && facts.mem_free_bytes <= facts.mem_bytes);
    assert_int_equal(module->facts(n, &facts, &err), FFAI_EINVAL);
    assert_says(&err, "no such GPU");
    assert_int_equal(module->open(&d, -1, &err), FFAI_EINVAL);
    assert_null(d);
    assert_says(&err, "cuda:-1");
}

/* Machines that the module cannot work on. */
static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *what;
        long long value, normal;
        const char *says[3];
    } cases[] = {{"driver", 0, 13000, {"no NVIDIA driver", "libcuda.so.1", ""}},
                 {"driver", 11080, 13000, {"too old", "CUDA 11.8", "CUDA 13.0"}},
                 {"devices", 0, 1, {"no NVIDIA GPU", "", ""}},
                 {"arch", 75, 90, {"cuda:0", "compute capability 7.5", "8.0"}}};
    if (!hn_emulated()) skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fa_error err;
        fa_device *d;
        hn_emu_control(cases[i].what, cases[i].value);
        int rc = module->open(&d, 0, &err);
        hn_emu_control(cases[i].what, cases[i].normal);
        assert_int_equal(rc, FFAI_ENOTSUP);
        assert_null(d);
        for (int k = 0; k < 3; k++) assert_says(&err, cases[i].says[k]);
    }
}

static void test_memory(void **state) {
    (void)state;
    fa_error err;
    fa_device *d = open_device();
    int64_t total, avail, after;
    assert_int_equal(d->memory(d, &total, &avail, &err), 0);
    assert_true(avail > 0 && avail <= total);
    uint8_t *p = (uint8_t *)d->alloc(d, 1000, "a test", &err), in[1000], out[1000];
    assert_non_null(p);
    assert_true((uintptr_t)p % (hn_emulated() ? 16 : 256) == 0); /* the emulation is strict: kernels need no more */
    for (int i = 0; i < 1000; i++) in[i] = (uint8_t)(i * 7);
    assert_int_equal(d->write(d, p, in, sizeof in, &err), 0);
    assert_int_equal(d->fill(d, p + 3, 0xAB, 5, &err), 0);
    assert_int_equal(d->read(d, out, p, sizeof out, &err), 0);
    memset(in + 3, 0xAB, 5);
    assert_memory_equal(in, out, sizeof in);
    d->release(d, p);
    d->release(d, NULL);
    assert_null(d->alloc(d, (size_t)total * 2, "the impossible", &err));
    assert_int_equal(err.code, FFAI_ENOMEM);
    assert_says(&err, "the impossible");
    assert_says(&err, "wanted");
    assert_says(&err, "free");
    d->inject(d, FA_INJECT_ALLOC, 2);
    void *a = d->alloc(d, 16, "first", &err);
    assert_non_null(a);
    assert_null(d->alloc(d, 16, "second", &err));
    assert_says(&err, "second");
    void *b = d->alloc(d, 0, "nothing", &err);
    assert_non_null(b);
    d->release(d, a);
    d->release(d, b);
    assert_int_equal(d->memory(d, &total, &after, &err), 0);
    assert_true(after >= avail - (16 << 20));
    close_device(d);
}

/* ---- uploads ---- */

typedef struct shape {
    size_t rows, row_bytes, pitch;
} shape;

/* A file full of bytes that depend on their place, as a checkpoint is mapped. */
static uint8_t *map_file(size_t bytes) {
    char path[] = "/tmp/ffai_uploadXXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    uint8_t *buf = (uint8_t *)malloc(bytes);
    for (size_t i = 0; i < bytes; i++) buf[i] = (uint8_t)((i * 2654435761u) >> 13 | 1);
    for (size_t at = 0; at < bytes;) {
        ssize_t n = write(fd, buf + at, bytes - at);
        assert_true(n > 0);
        at += (size_t)n;
    }
    free(buf);
    uint8_t *p = (uint8_t *)mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(p != MAP_FAILED);
    close(fd);
    return p;
}

static void check_copy(fa_device *d, const fa_copy *c) {
    fa_error err;
    size_t pitch = c->pitch > c->row_bytes ? c->pitch : c->row_bytes, n = c->rows * pitch;
    uint8_t *got = (uint8_t *)malloc(n + 16);
    assert_int_equal(d->read(d, got, c->dev, n + 16, &err), 0);
    for (size_t r = 0; r < c->rows; r++) {
        assert_memory_equal(got + r * pitch, (const uint8_t *)c->host + r * c->row_bytes, c->row_bytes);
        for (size_t i = c->row_bytes; i < pitch; i++) assert_int_equal(got[r * pitch + i], 0);
    }
    for (size_t i = 0; i < 16; i++) assert_int_equal(got[n + i], 0xEE); /* nothing behind it was touched */
    free(got);
}

static void test_upload(void **state) {
    (void)state;
    enum { MANY = 300, MIB = 1 << 20 };
    static const shape shapes[] = {{1, 1, 16},           {7, 17, 32},
                                   {3, 4096, 4096},      {1000, 33, 48},
                                   {1, 9 * MIB + 5, 0},  {5, 5 * MIB / 2 + 3, 0},
                                   {0, 64, 64},          {4, 0, 16},
                                   {70000, 70, 80},      {3, 3 * MIB + 1, 3 * MIB + 16},
                                   {1, 4 * MIB, 4 * MIB}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    fa_error err;
    fa_device *d = open_device();
    fa_copy list[SHAPES + MANY];
    size_t host_bytes = 0, dev_bytes = 0, n = 0;
    for (int i = 0; i < SHAPES + MANY; i++) {
        shape s = i < SHAPES ? shapes[i] : (shape){1, (size_t)(i % 37) * 11 + 1, 0};
        list[i] = (fa_copy){NULL, NULL, s.rows, s.row_bytes, s.pitch};
        host_bytes += s.rows * s.row_bytes + 3;
        dev_bytes += s.rows * (s.pitch > s.row_bytes ? s.pitch : s.row_bytes) + 512;
    }
    uint8_t *file = map_file(host_bytes), *dev = (uint8_t *)d->alloc(d, dev_bytes, "uploads", &err), *at = dev;
    assert_non_null(dev);
    assert_int_equal(d->fill(d, dev, 0xEE, dev_bytes, &err), 0);
    for (int i = 0; i < SHAPES + MANY; i++) {
        fa_copy *c = &list[i];
        c->host = file + n + i % 3;
        n += c->rows * c->row_bytes + 3;
        c->dev = at;
        at += (c->rows * (c->pitch > c->row_bytes ? c->pitch : c->row_bytes) + 16 + 255) / 256 * 256;
    }
    assert_true(at <= dev + dev_bytes);
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(d->upload(d, list, SHAPES + MANY, &err), 0);
        for (int i = 0; i < SHAPES + MANY; i++) check_copy(d, &list[i]);
        assert_int_equal(d->fill(d, dev, 0xEE, dev_bytes, &err), 0);
    }
    assert_int_equal(d->upload(d, list, 0, &err), 0);
    d->release(d, dev);
    munmap(file, host_bytes);
    close_device(d);
}

/* ---- the arena ---- */

static void *arena_reserve(void *user, size_t *bytes, fa_error *err) {
    fa_device *d = (fa_device *)user;
    return d->reserve(d, bytes, err);
}
static int arena_commit(void *user, void *base, size_t from, size_t to) {
    fa_device *d = (fa_device *)user;
    return d->commit(d, base, from, to);
}
static void arena_unreserve(void *user, void *base, size_t bytes, size_t committed) {
    fa_device *d = (fa_device *)user;
    d->unreserve(d, base, bytes, committed);
}

static void device_arena(fa_arena *a, fa_device *d) {
    const fa_arena_source source = {d, arena_reserve, arena_commit, arena_unreserve};
    fa_error err;
    int rc = fa_arena_create(a, (size_t)1 << 36, &source, &err);
    if (rc) fail_msg("%s", err.msg);
}

static void test_arena(void **state) {
    (void)state;
    fa_error err;
    fa_device *d = open_device();
    int64_t total, before, during, after;
    for (int cycle = 0; cycle < 5; cycle++) {
        fa_arena a;
        device_arena(&a, d);
        assert_int_equal(d->memory(d, &total, &before, &err), 0);
        uint8_t *base = a.base;
        assert_true((uintptr_t)base % FA_ARENA_ALIGN == 0);
        static const size_t sizes[] = {100, 3 << 20, 1, 7 << 20, 64 << 20};
        for (int i = 0; i < 5; i++) {
            uint32_t v = 0x12345678u + (uint32_t)i, got = 0;
            size_t n = sizes[i] < 4 ? 4 : sizes[i];
            uint8_t *p = (uint8_t *)fa_arena_alloc(&a, n);
            assert_non_null(p);
            assert_int_equal(d->write(d, p + n - 4, &v, 4, &err), 0);
            assert_int_equal(d->read(d, &got, p + n - 4, 4, &err), 0);
            assert_int_equal(got, v);
        }
        assert_ptr_equal(a.base, base);
        assert_true(a.committed % FA_ARENA_STEP == 0 && a.committed >= a.used);
        assert_int_equal(d->memory(d, &total, &during, &err), 0);
        assert_true(during <= before - (70 << 20));
        d->inject(d, FA_INJECT_ALLOC, 1);
        assert_null(fa_arena_alloc(&a, 64 << 20));
        assert_non_null(fa_arena_alloc(&a, 64 << 20));
        fa_arena_destroy(&a);
        assert_int_equal(d->memory(d, &total, &after, &err), 0);
        assert_true(after >= before - (4 << 20)); /* what the driver keeps for itself moves a little */
    }
    close_device(d);
}

/* ---- programs ---- */

enum { ROWS = 5, DIM = 96, OUT = 2 };

/* The step of all tests below: y = norm(x) * w; y += x; g = silu(y) * x; logits = softcap(rows(g)). */
typedef struct fixture {
    fa_device *d; /* NULL: the CPU */
    fa_backend *be;
    fa_arena arena;
    fa_program prog;
    fa_batch batch;
    int32_t block[256];
    fa_norm norm;
    float *x; /* [ROWS, DIM] where the backend computes */
    fa_tensor y;
} fixture;

static int32_t *ints(fixture *f, int n) {
    int32_t *p = f->block + f->batch.used / 4;
    f->batch.used += (size_t)(n + 3) / 4 * 16;
    return p;
}

static void make_batch(fixture *f) {
    fa_batch *b = &f->batch;
    *b =
        (fa_batch){.n_tok = ROWS, .n_seq = 1, .n_out = OUT, .max_q = ROWS, .n_axes = 1, .n_group = 1, .page_stride = 4};
    b->block = (uint8_t *)f->block;
    b->block_bytes = sizeof f->block;
    b->tok = ints(f, ROWS);
    b->pos = ints(f, ROWS);
    b->row_start = ints(f, 2);
    b->row_seq = ints(f, ROWS);
    b->slot = ints(f, 1);
    b->len = ints(f, 1);
    b->rope_len = ints(f, 1);
    b->kv_lo[0] = ints(f, ROWS);
    b->kv_hi = ints(f, ROWS);
    b->out_row = ints(f, OUT);
    b->tile_seq = ints(f, 1);
    b->tile_row = ints(f, 1);
    b->page[0] = ints(f, 4);
    b->row_start[1] = ROWS;
    b->out_row[1] = ROWS - 1;
}

static void put(fixture *f, void *to, const void *from, size_t bytes) {
    fa_error err;
    if (!f->d)
        memcpy(to, from, bytes);
    else
        assert_int_equal(f->d->write(f->d, to, from, bytes, &err), 0);
}

static void *get_memory(fixture *f, size_t bytes) {
    fa_error err;
    void *p = f->d ? f->d->alloc(f->d, bytes, "a test", &err) : calloc(1, bytes);
    assert_non_null(p);
    return p;
}

static void put_input(fixture *f, uint64_t seed) {
    float x[ROWS * DIM];
    for (int i = 0; i < ROWS * DIM; i++) x[i] = (float)((i * 37 + (int)seed * 11) % 101) / 50 - 1;
    put(f, f->x, x, sizeof x);
    for (int i = 0; i < OUT; i++) f->batch.out_row[i] = (int32_t)((seed + 3 * (uint64_t)i) % ROWS);
}

static void record(fixture *f, bool taps) {
    fa_cx cx = {.be = f->be, .arena = &f->arena, .prog = &f->prog, .batch = &f->batch, .layer = -1, .taps = taps};
    fa_tensor x = {f->x, {ROWS, DIM, 1, 1}, 2, FA_F32};
    fa_arena_reset(&f->arena, 0);
    f->prog.n = 0;
    size_t mark = fa_layer_begin(&cx, 3);
    fa_tensor y = fa_norm_op(&cx, x, &f->norm);
    fa_tap(&cx, "normed", y);
    fa_add(&cx, y, x, 1);
    fa_tensor g = fa_glu(&cx, y, x, FA_ACT_SILU);
    fa_tensor logits = fa_out_rows(&cx, g);
    fa_softcap(&cx, logits, 5);
    fa_layer_end(&cx, mark);
    if (cx.err.code) fail_msg("%s", cx.err.msg);
    f->prog.out = logits;
    f->y = y;
}

static void begin(fixture *f, fa_device *d) {
    fa_error err;
    float w[DIM];
    memset(f, 0, sizeof *f);
    f->d = d;
    make_batch(f);
    if (d) {
        const fa_backend_opts o = {.exact = true, .n_slot = 2, .max_ctx = 256, .vocab = DIM, .batch = &f->batch};
        int rc = d->backend(d, &f->be, &o, &err);
        if (rc) fail_msg("%s", err.msg);
        device_arena(&f->arena, d);
    } else {
        assert_int_equal(fa_backend_cpu_create(&f->be, 1, NULL, true, &err), 0);
        assert_int_equal(fa_arena_create(&f->arena, (size_t)1 << 30, NULL, &err), 0);
    }
    f->x = (float *)get_memory(f, ROWS * DIM * sizeof(float));
    float *norm = (float *)get_memory(f, sizeof w);
    for (int i = 0; i < DIM; i++) w[i] = 1 + (float)i / DIM;
    put(f, norm, w, sizeof w);
    f->norm = (fa_norm){.w = norm, .dim = DIM, .eps = 1e-5f};
    record(f, false);
}

static void end(fixture *f) {
    if (f->d) f->be->forget(f->be, &f->prog);
    fa_free(f->prog.rec);
    f->be->free(f->be);
    fa_arena_destroy(&f->arena);
    if (f->d) {
        f->d->release(f->d, f->x);
        f->d->release(f->d, (void *)f->norm.w);
    } else {
        free(f->x);
        free((void *)f->norm.w);
    }
}

/* One step with the inputs of `seed`; out [OUT, DIM]. */
static int step(fixture *f, uint64_t seed, const fa_run_opts *opts, float *out, fa_error *err) {
    put_input(f, seed);
    int rc = f->be->run(f->be, &f->prog, &f->batch, opts, err);
    if (rc || !out) return rc;
    if (f->d) return f->be->fetch(f->be, f->prog.out, 0, OUT, out, err);
    memcpy(out, f->prog.out.data, OUT * DIM * sizeof(float));
    return 0;
}

static void assert_step(fixture *f, fixture *cpu, uint64_t seed) {
    float got[OUT * DIM], want[OUT * DIM];
    fa_error err;
    int rc = step(f, seed, NULL, got, &err);
    if (rc) fail_msg("%s", err.msg);
    assert_int_equal(step(cpu, seed, NULL, want, &err), 0);
    for (int i = 0; i < OUT * DIM; i++)
        if (!(fabsf(got[i] - want[i]) < 1e-4f)) fail_msg("seed %d, [%d]: %g, not %g", (int)seed, i, got[i], want[i]);
}

static void test_run(void **state) {
    (void)state;
    fa_device *d = open_device();
    fixture f, cpu;
    begin(&f, d);
    begin(&cpu, NULL);
    assert_string_equal(f.be->name, "cuda");
    assert_true(strncmp(f.be->isa, "sm_", 3) == 0 && f.be->act == FA_F32 && f.be->dev == d);
    for (uint64_t s = 0; s < 20; s++) assert_step(&f, &cpu, s); /* more than the ring of batches */
    assert_null(f.prog.replay);
    end(&f);
    end(&cpu);
    close_device(d);
}

/* Plain, captured, replayed: the same bits, with batches and inputs that change. */
static void test_graph(void **state) {
    (void)state;
    fa_device *d = open_device();
    fixture f, cpu;
    float plain[6][OUT * DIM], got[OUT * DIM];
    fa_error err;
    begin(&f, d);
    begin(&cpu, NULL);
    for (int s = 0; s < 6; s++) assert_int_equal(step(&f, (uint64_t)s, NULL, plain[s], &err), 0);
    f.prog.repeats = true;
    for (int round = 0; round < 3; round++)
        for (int s = 0; s < 6; s++) {
            assert_int_equal(step(&f, (uint64_t)s, NULL, got, &err), 0);
            assert_memory_equal(got, plain[s], sizeof got);
        }
    assert_non_null(f.prog.replay);
    /* steps ahead of the device */
    for (int s = 0; s < 40; s++) assert_int_equal(step(&f, (uint64_t)s, NULL, NULL, &err), 0);
    assert_int_equal(f.be->wait(f.be, &err), 0);
    /* another shape: recorded anew */
    f.be->forget(f.be, &f.prog);
    assert_null(f.prog.replay);
    record(&f, false);
    for (uint64_t s = 0; s < 5; s++) assert_step(&f, &cpu, s);
    /* a host field that graphs depend on */
    f.batch.max_q = ROWS - 1;
    for (uint64_t s = 0; s < 4; s++) assert_step(&f, &cpu, s);
    f.batch.max_q = ROWS;
    assert_step(&f, &cpu, 4);
    end(&f);
    end(&cpu);
    close_device(d);
}

/* What a replayed step costs the host: median of many. */
static void test_host_cost(void **state) {
    (void)state;
    enum { RECORDS = 160, STEPS = 201 };
    fa_device *d = open_device();
    fixture f;
    fa_error err;
    double t[STEPS];
    begin(&f, d);
    fa_cx cx = {.be = f.be, .arena = &f.arena, .prog = &f.prog, .batch = &f.batch, .layer = 0};
    for (int i = 0; i < RECORDS; i++) fa_softcap(&cx, f.prog.out, 5);
    assert_int_equal(cx.err.code, 0);
    f.prog.repeats = true;
    int n = hn_emulated() ? 4 : STEPS;
    for (int i = 0; i < n; i++) {
        double t0 = fa_now();
        assert_int_equal(f.be->run(f.be, &f.prog, &f.batch, NULL, &err), 0);
        t[i] = fa_now() - t0;
        assert_int_equal(f.be->wait(f.be, &err), 0);
    }
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && t[j] < t[j - 1]; j--) {
            double v = t[j];
            t[j] = t[j - 1], t[j - 1] = v;
        }
    printf("a replayed step of %d records: %.1f us of the host\n", f.prog.n, t[n / 2] * 1e6);
    if (!hn_emulated()) assert_true(t[n / 2] < 30e-6);
    end(&f);
    close_device(d);
}

typedef struct worker {
    pthread_t thread;
    fixture f;
    int failed; /* line of the first check that failed (cmocka's checks belong to the main thread) */
} worker;

/* Plain, captured and replayed steps while another thread allocates, captures and replays on the same GPU. */
static void *work(void *arg) {
    worker *w = (worker *)arg;
    float plain[4][OUT * DIM], got[OUT * DIM];
    fa_error err;
    for (int round = 0; round < 12 && !w->failed; round++) {
        w->f.prog.repeats = round > 0;
        for (int s = 0; s < 4 && !w->failed; s++) {
            void *p = w->f.d->alloc(w->f.d, 1 << 20, "a test", &err);
            if (!p || step(&w->f, (uint64_t)s, NULL, round ? got : plain[s], &err)) w->failed = __LINE__;
            if (round && memcmp(got, plain[s], sizeof got) != 0) w->failed = __LINE__;
            w->f.d->release(w->f.d, p);
        }
        if (round % 4 == 3) w->f.be->forget(w->f.be, &w->f.prog);
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    enum { THREADS = 3 };
    worker *w = (worker *)calloc(THREADS, sizeof *w);
    for (int i = 0; i < THREADS; i++) begin(&w[i].f, open_device());
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(w[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
        fa_device *d = w[i].f.d;
        end(&w[i].f);
        d->free(d);
    }
    for (int i = 0; i < THREADS; i++)
        if (w[i].failed) fail_msg("thread %d: line %d", i, w[i].failed);
    free(w);
}

static void test_bucket(void **state) {
    (void)state;
    static const int want[][2] = {{1, 1},   {2, 2},   {3, 4},   {5, 8},    {9, 16},    {16, 16},  {17, 32},
                                  {33, 48}, {49, 64}, {64, 64}, {65, 128}, {129, 192}, {512, 512}};
    fa_device *d = open_device();
    fixture f;
    begin(&f, d);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_int_equal(f.be->bucket(f.be, want[i][0]), want[i][1]);
    end(&f);
    close_device(d);
}

typedef struct tapped {
    int n;
    float v[ROWS * DIM];
} tapped;

static void on_tap(void *user, const char *name, int layer, fa_tensor t) {
    tapped *tp = (tapped *)user;
    assert_string_equal(name, "normed");
    assert_int_equal(layer, 3);
    assert_int_equal(t.dtype, FA_F32);
    assert_int_equal(fa_tensor_len(t), ROWS * DIM);
    memcpy(tp->v, t.data, sizeof tp->v);
    tp->n++;
}

static void test_taps(void **state) {
    (void)state;
    fa_device *d = open_device();
    fixture f, cpu;
    tapped a = {0}, b = {0};
    fa_error err;
    begin(&f, d);
    begin(&cpu, NULL);
    record(&f, true);
    record(&cpu, true);
    f.prog.repeats = true;
    for (uint64_t s = 0; s < 4; s++) {
        const fa_run_opts oa = {.tap = on_tap, .tap_user = &a}, ob = {.tap = on_tap, .tap_user = &b};
        assert_int_equal(step(&f, s, &oa, NULL, &err), 0);
        assert_int_equal(step(&cpu, s, &ob, NULL, &err), 0);
        for (int i = 0; i < ROWS * DIM; i++) assert_true(fabsf(a.v[i] - b.v[i]) < 1e-5f);
        assert_step(&f, &cpu, s); /* without a sink */
    }
    assert_int_equal(a.n, 4);
    end(&f);
    end(&cpu);
    close_device(d);
}

static void test_fetch(void **state) {
    (void)state;
    enum { N = 3, W = 200001 }; /* more than one pinned buffer */
    fa_device *d = open_device();
    fixture f;
    fa_error err;
    begin(&f, d);
    uint16_t *host = (uint16_t *)malloc(sizeof(uint16_t) * N * W);
    float *out = (float *)malloc(sizeof(float) * N * W);
    for (int i = 0; i < N * W; i++) host[i] = (uint16_t)(i % 0x7F00);
    void *dev = get_memory(&f, sizeof(uint16_t) * N * W);
    put(&f, dev, host, sizeof(uint16_t) * N * W);
    fa_tensor t = {dev, {N, W, 1, 1}, 2, FA_BF16};
    assert_int_equal(f.be->fetch(f.be, t, 1, 2, out, &err), 0);
    for (int i = 0; i < 2 * W; i++) {
        uint32_t bits = (uint32_t)host[W + i] << 16;
        assert_memory_equal(&out[i], &bits, 4);
    }
    assert_int_equal(f.be->fetch(f.be, t, 2, 2, out, &err), FFAI_EINTERNAL);
    d->release(d, dev);
    free(host);
    free(out);
    end(&f);
    close_device(d);
}

static void test_profile(void **state) {
    (void)state;
    fa_device *d = open_device();
    fixture f, cpu;
    fa_error err;
    fa_op_time times[FA_OP_COUNT] = {{0}};
    fa_kernel_time kernels[FA_KERNEL_TIMES] = {{0}};
    const fa_run_opts o = {.times = times, .kernels = kernels};
    begin(&f, d);
    begin(&cpu, NULL);
    f.prog.repeats = true;
    for (uint64_t s = 0; s < 4; s++) {
        assert_step(&f, &cpu, s);
        assert_int_equal(step(&f, s, &o, NULL, &err), 0);
    }
    assert_int_equal(times[FA_OP_NORM].calls, 4);
    assert_int_equal(times[FA_OP_ADD].calls, 4);
    assert_true(times[FA_OP_NORM].bytes > 0);
    int n = 0;
    for (; kernels[n].kernel; n++) {
        assert_true(kernels[n].calls > 0 && kernels[n].calls % 4 == 0 && kernels[n].seconds >= 0);
        assert_null(strpbrk(kernels[n].kernel, "<>()"));
    }
    assert_true(n >= 4);
    end(&f);
    end(&cpu);
    close_device(d);
}

/* ---- failures ---- */

/* Big products: not under a sanitizer, where they take minutes. */
static void test_rates(void **state) {
    fa_error err = {0};
    fa_device_rates r = {0};
    (void)state;
    harness *h = hn_open(&(hn_opts){.exact = true});
    fa_device *d = hn_device(h);
    if (d->rates(d, &r, &err)) fail_msg("%s", err.msg);
    assert_true(r.read_bytes_s > 0 && r.bf16_ops_s > 0 && r.f32_ops_s > 0);
    if (!hn_emulated())
        printf("read %.0f GB/s, bf16 %.0f, f32 %.1f Top/s\n", r.read_bytes_s * 1e-9, r.bf16_ops_s * 1e-12,
               r.f32_ops_s * 1e-12);
    hn_close(h);
}

static void test_failed_launch(void **state) {
    (void)state;
    fa_device *d = open_device();
    fixture f, cpu;
    fa_error err;
    begin(&f, d);
    begin(&cpu, NULL);
    for (int repeats = 0; repeats < 2; repeats++) {
        f.prog.repeats = repeats;
        for (int n = 1; n <= 3; n++)                /* which launch */
            for (int warm = 0; warm <= 2; warm++) { /* plain, captured, replayed */
                f.be->forget(f.be, &f.prog);
                for (int s = 0; s < warm; s++) assert_step(&f, &cpu, (uint64_t)s);
                d->inject(d, FA_INJECT_LAUNCH, repeats && warm == 2 ? 1 : n);
                assert_true(step(&f, 7, NULL, NULL, &err) < 0);
                assert_says(&err, "cuda:0");
                assert_says(&err, "too many resources");
                if (!repeats) assert_says(&err, "of layer 3");
                for (uint64_t s = 0; s < 4; s++) assert_step(&f, &cpu, s);
            }
    }
    end(&f);
    end(&cpu);
    close_device(d);
}

/* A backend that cannot be made leaves nothing behind, whichever allocation fails. */
static void test_no_memory(void **state) {
    (void)state;
    fa_device *d = open_device();
    fa_error err;
    fixture f;
    begin(&f, d);
    end(&f);
    for (int what = FA_INJECT_ALLOC; what <= FA_INJECT_HEAP; what += FA_INJECT_HEAP - FA_INJECT_ALLOC) {
        int failed = 0, made = 0;
        for (long n = 1; n < 50 && !made; n++) {
            const fa_backend_opts o = {.exact = true, .n_slot = 2, .max_ctx = 256, .vocab = DIM, .batch = &f.batch};
            fa_backend *be = NULL;
            d->inject(d, what, n);
            int rc = d->backend(d, &be, &o, &err);
            d->inject(d, what, 0);
            if (rc) {
                assert_int_equal(rc, FFAI_ENOMEM);
                assert_null(be);
                failed++;
            } else {
                be->free(be);
                made = 1;
            }
        }
        assert_true(made && failed >= 2);
    }
    close_device(d);
}

/* Last: after it this process cannot use the GPU. */
static void test_lost(void **state) {
    (void)state;
    fa_device *d = open_device();
    fixture f, cpu;
    fa_error err, again;
    char first[sizeof err.msg];
    begin(&f, d);
    begin(&cpu, NULL);
    assert_step(&f, &cpu, 1);
    d->inject(d, FA_INJECT_FAULT, 2);
    int rc = step(&f, 2, NULL, NULL, &err);
    if (!rc) rc = f.be->wait(f.be, &err);
    assert_true(rc < 0);
    snprintf(first, sizeof first, "%s", err.msg);
    assert_says(&err, "cannot use the GPU any more");
    assert_true(f.be->run(f.be, &f.prog, &f.batch, NULL, &again) < 0);
    assert_string_equal(again.msg, first);
    assert_true(f.be->wait(f.be, &again) < 0);
    assert_string_equal(again.msg, first);
    float x;
    assert_true(d->read(d, &x, f.x, sizeof x, &again) < 0);
    assert_string_equal(again.msg, first);
    assert_null(d->alloc(d, 16, "more", &again));
    assert_string_equal(again.msg, first);
    float want[OUT * DIM];
    assert_int_equal(step(&cpu, 2, NULL, want, &err), 0); /* the process goes on */
    end(&f);
    end(&cpu);
    d->free(d); /* what it gave went with it */
}

int main(void) {
    harness *h = hn_open(&(hn_opts){.exact = true}); /* for its module */
    module = hn_module(h);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_module),    cmocka_unit_test(test_refusals),  cmocka_unit_test(test_memory),
        cmocka_unit_test(test_upload),    cmocka_unit_test(test_arena),     cmocka_unit_test(test_run),
        cmocka_unit_test(test_graph),     cmocka_unit_test(test_host_cost), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_bucket),    cmocka_unit_test(test_taps),      cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_profile),   cmocka_unit_test(test_rates),     cmocka_unit_test(test_failed_launch),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_lost)};
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    hn_close(h);
    return rc;
}
