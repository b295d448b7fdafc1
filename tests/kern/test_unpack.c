/* Unpack kernels: every ISA against the C definition of the format, bit for bit, at odd sizes and every alignment, with
 * canaries around the outputs and the last row ending at an unmapped page. `--bench [MiB]` prints their speed instead:
 * one row that stays in L1, and a matrix of that many MiB (default 512) that streams from memory. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kern/levels.h"

/* --- which kernels this machine has --- */

typedef struct isa {
    const char *name;
    fa_kernels k;
} isa;

#define MAX_ISAS 8

static int isas(isa *list) {
    int n = 0;
    while (n < MAX_ISAS && unpack_level(n, &list[n].k)) {
        list[n].name = list[n].k.isa;
        n++;
    }
    assert_true(n && n < MAX_ISAS);
    return n;
}

/* --- shapes --- */

/* Every variant of every quantized format; returns false after the last. */
static bool variant(int i, fa_weight *w) {
    static const uint8_t bits[] = {2, 3, 4, 5, 6, 8}, types[] = {FA_F32, FA_F16, FA_BF16};
    memset(w, 0, sizeof *w);
    w->name = "test";
    if (i < 54) {
        w->fmt = FA_FMT_AFFINE;
        w->bits = bits[i % 6];
        w->group = (uint16_t)(32 << i / 6 % 3);
        w->scale_dtype = types[i / 18];
        return true;
    }
    if (i == 54) {
        w->fmt = FA_FMT_MXFP4;
        w->bits = 4, w->group = 32, w->scale_dtype = FA_U8;
        return true;
    }
    if (i <= 56) {
        w->fmt = FA_FMT_NVFP4;
        w->bits = 4, w->group = 16, w->scale_dtype = i == 55 ? FA_F8_E4M3 : FA_F32;
        return true;
    }
    w->fmt = (uint8_t)(FA_FMT_Q4_0 + i - 57);
    return FA_FMT_Q4_0 + i - 57 < FA_FMT_COUNT;
}

static int block_of(const fa_weight *w) { return w->group ? w->group : fa_qfmts[w->fmt].block; }

static void set_shape(fa_weight *w, int64_t rows, int64_t cols) {
    w->rows = rows, w->cols = cols;
    w->row_bytes = fa_qfmt_row_bytes((fa_fmt)w->fmt, w->bits, cols);
    w->scale_row_bytes = w->group ? (size_t)(cols / w->group) * fa_dtype_size((fa_dtype)w->scale_dtype) : 0;
}

static void random_bytes(uint8_t *p, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)fa_rng_at(seed, i);
}

/* --- outputs with canaries --- */

#define CANARY     0xA5
#define EDGE_BYTES 64

typedef struct output {
    uint8_t *mem[3], *codes;
    float *scale, *min;
    size_t size[3]; /* bytes a kernel may touch: padding included */
} output;

static void output_alloc(output *o, int64_t cols) {
    o->size[0] = ((size_t)cols + 63) / 64 * 64;
    o->size[1] = o->size[2] = ((size_t)cols / 16 + 16) * sizeof(float);
    for (int i = 0; i < 3; i++) {
        o->mem[i] = aligned_alloc(64, (o->size[i] + 2 * EDGE_BYTES + 63) / 64 * 64);
        assert_non_null(o->mem[i]);
        memset(o->mem[i], CANARY, o->size[i] + 2 * EDGE_BYTES);
    }
    o->codes = o->mem[0] + EDGE_BYTES;
    o->scale = (float *)(void *)(o->mem[1] + EDGE_BYTES);
    o->min = (float *)(void *)(o->mem[2] + EDGE_BYTES);
}

static bool canaries_live(const output *o) {
    for (int i = 0; i < 3; i++)
        for (int b = 0; b < EDGE_BYTES; b++)
            if (o->mem[i][b] != CANARY || o->mem[i][EDGE_BYTES + o->size[i] + (size_t)b] != CANARY) return false;
    return true;
}

static void output_free(output *o) {
    for (int i = 0; i < 3; i++) free(o->mem[i]);
}

static bool same_floats(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t x, y;
        memcpy(&x, a + i, 4);
        memcpy(&y, b + i, 4);
        if (x != y && !(isnan(a[i]) && isnan(b[i]))) return false;
    }
    return true;
}

/* Row `row` of w by the definition and by every kernel that is not the definition. */
static void check_row(const isa *list, int n, const fa_weight *w, int64_t row, const char *where) {
    const fa_qfmt *f = &fa_qfmts[w->fmt];
    const int64_t groups = w->cols / f->ugroup;
    output want, got;
    char text[32];
    output_alloc(&want, w->cols);
    f->unpack(w, row, want.codes, want.scale, want.min);
    for (int i = 0; i < n; i++) {
        if (list[i].k.unpack[w->fmt] == f->unpack) continue;
        output_alloc(&got, w->cols);
        list[i].k.unpack[w->fmt](w, row, got.codes, got.scale, got.min);
        const char *bad = memcmp(want.codes, got.codes, (size_t)w->cols) ? "codes"
                          : !same_floats(want.scale, got.scale, groups)  ? "scales"
                          : !same_floats(want.min, got.min, groups)      ? "mins"
                          : !canaries_live(&got)                         ? "canaries"
                                                                         : NULL;
        if (bad)
            fail_msg("%s %s, scale type %d, cols %d, %s: %s differ", list[i].name, fa_weight_fmt_text(w, text),
                     w->scale_dtype, (int)w->cols, where, bad);
        output_free(&got);
    }
    assert_true(canaries_live(&want));
    output_free(&want);
}

static const int blocks[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 28, 33, 128};

static void test_sizes_and_alignments(void **state) {
    (void)state;
    isa list[MAX_ISAS];
    const int n = isas(list);
    fa_weight w;
    for (int v = 0; variant(v, &w); v++)
        for (size_t s = 0; s < sizeof blocks / sizeof *blocks; s++) {
            if ((int64_t)blocks[s] * block_of(&w) > 4096) continue;
            set_shape(&w, 2, (int64_t)blocks[s] * block_of(&w));
            const size_t nc = w.row_bytes * 2, ns = w.scale_row_bytes * 2;
            for (size_t off = 0; off < 16; off++) {
                char where[32];
                uint8_t *c = malloc(nc + off), *sc = malloc(ns + off + 1), *b = malloc(ns + off + 1);
                random_bytes(c + off, nc, 1000u * (unsigned)v + s);
                random_bytes(sc + off, ns, 1000u * (unsigned)v + s + 333);
                random_bytes(b + off, ns, 1000u * (unsigned)v + s + 666);
                w.codes = c + off;
                w.scales = ns ? sc + off : NULL;
                w.biases = w.fmt == FA_FMT_AFFINE ? b + off : NULL;
                snprintf(where, sizeof where, "offset %d", (int)off);
                for (int64_t row = 0; row < 2; row++) check_row(list, n, &w, row, where);
                free(c), free(sc), free(b);
            }
        }
}

/* n bytes that end where a page without access begins. */
static uint8_t *guarded(size_t n, uint8_t **map, size_t *map_len) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n + page - 1) / page * page + page;
    *map_len = body + page;
    *map = mmap(NULL, *map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(*map != MAP_FAILED);
    assert_int_equal(mprotect(*map + body, page, PROT_NONE), 0);
    return *map + body - n;
}

static void test_end_of_mapping(void **state) {
    (void)state;
    isa list[MAX_ISAS];
    const int n = isas(list);
    fa_weight w;
    for (int v = 0; variant(v, &w); v++)
        for (size_t s = 0; s < sizeof blocks / sizeof *blocks; s++) {
            if ((int64_t)blocks[s] * block_of(&w) > 4096) continue;
            uint8_t *map[3], *at[3];
            size_t len[3], bytes[3];
            set_shape(&w, 1, (int64_t)blocks[s] * block_of(&w));
            bytes[0] = w.row_bytes;
            bytes[1] = bytes[2] = w.scale_row_bytes;
            for (int i = 0; i < 3; i++) {
                at[i] = guarded(bytes[i], &map[i], &len[i]);
                random_bytes(at[i], bytes[i], (uint64_t)v * 100 + s * 3 + (unsigned)i);
            }
            w.codes = at[0], w.scales = at[1], w.biases = at[2];
            check_row(list, n, &w, 0, "before an unmapped page");
            for (int i = 0; i < 3; i++) munmap(map[i], len[i]);
        }
}

/* --- speed --- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Cycles per second of this core at this moment: a chain of multiplications of three cycles each (x86); 0 elsewhere. */
static double core_hz(void) {
#if defined(__x86_64__)
    double best = 0;
    for (int t = 0; t < 5; t++) {
        uint64_t x = 3;
        const double t0 = now();
        for (int i = 0; i < 1000000; i++) {
            x *= x;
            __asm__ volatile("" : "+r"(x));
        }
        const double hz = 3e6 / (now() - t0);
        if (hz > best) best = hz;
    }
    return best;
#else
    return 0;
#endif
}

typedef struct speed {
    double l1_gbs, codes_per_cycle, stream_gbs;
} speed;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds per row: the matrix once, in slices of about 1 MiB, the 20th percentile of the slices (other programs share
 * the machine). */
static double stream_rows(const fa_kernels *k, const fa_weight *w, size_t bytes, output *o) {
    double t[1024];
    const int64_t slice = (int64_t)((1 << 20) / bytes) + 1;
    const double start = now();
    int n = 0;
    for (int64_t r = 0; r + slice <= w->rows && n < 1024 && now() - start < 0.3; r += slice) {
        const double t0 = now();
        for (int64_t i = r; i < r + slice; i++) k->unpack[w->fmt](w, i, o->codes, o->scale, o->min);
        t[n++] = (now() - t0) / (double)slice;
    }
    qsort(t, (size_t)n, sizeof *t, by_value);
    return n ? t[n / 5] : 1;
}

static speed measure(const fa_kernels *k, const fa_weight *w, output *o, double hz) {
    const size_t bytes = w->row_bytes + w->scale_row_bytes * (w->biases ? 2 : 1);
    double best = 1e9;
    for (int t = 0; t < 50; t++) {
        const int reps = k->unpack[w->fmt] == fa_qfmts[w->fmt].unpack ? 2 : 50;
        const double t0 = now();
        for (int i = 0; i < reps; i++) k->unpack[w->fmt](w, 0, o->codes, o->scale, o->min);
        const double dt = (now() - t0) / reps;
        if (dt < best) best = dt;
    }
    const speed s = {(double)bytes / best * 1e-9, hz > 0 ? (double)w->cols / (best * hz) : 0,
                     (double)bytes / stream_rows(k, w, bytes, o) * 1e-9};
    return s;
}

static int bench(int mib) {
    isa list[MAX_ISAS];
    const int n = isas(list);
    const int64_t cols = 4096;
    const size_t total = (size_t)mib << 20;
    uint8_t *mem = malloc(total);
    output o;
    fa_weight w;
    char text[32];
    if (!mem) return 1;
    random_bytes(mem, 1 << 20, 1);
    /* Bytes whose half-words are ordinary numbers (about 2^-16 to 2^15) in every scale type: no subnormals, which cost
     * traps. */
    for (size_t i = 0; i < 1 << 20; i++) mem[i] = (uint8_t)(0x31 + mem[i] % 16);
    for (size_t i = 1 << 20; i < total; i <<= 1) memcpy(mem + i, mem, i < total - i ? i : total - i);
    output_alloc(&o, cols);
    const double hz = core_hz();
    printf("rows of %d values, streams of %d MiB, core at %.2f GHz\n", (int)cols, mib, hz * 1e-9);
    printf("%-20s %-10s %10s %12s %12s\n", "format", "isa", "L1 GB/s", "codes/cycle", "stream GB/s");
    for (int v = 0; variant(v, &w); v++) {
        if (w.fmt == FA_FMT_AFFINE && (w.group != 64 || w.scale_dtype != FA_BF16)) continue;
        set_shape(&w, 1, cols);
        w.rows = (int64_t)((total - 64) / (w.row_bytes + 2 * w.scale_row_bytes));
        w.codes = mem + 1;
        w.scales = w.group ? w.codes + (size_t)w.rows * w.row_bytes : NULL;
        w.biases = w.fmt == FA_FMT_AFFINE ? w.scales + (size_t)w.rows * w.scale_row_bytes : NULL;
        for (int i = 0; i < n; i++) {
            if (i && list[i].k.unpack[w.fmt] == list[i - 1].k.unpack[w.fmt]) continue;
            const speed s = measure(&list[i].k, &w, &o, hz);
            printf("%-20s %-10s %10.2f %12.2f %12.2f\n", fa_weight_fmt_text(&w, text), list[i].name, s.l1_gbs,
                   s.codes_per_cycle, s.stream_gbs);
        }
    }
    output_free(&o);
    free(mem);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench(argc > 2 && atoi(argv[2]) > 1 ? atoi(argv[2]) : 512);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_and_alignments),
        cmocka_unit_test(test_end_of_mapping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
