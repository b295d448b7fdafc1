/* Parity with the official implementation: logits of every tiny checkpoint of tests/data/families, in exact precision,
 * against those that transformers computed in float32.
 *
 *     parity FFAI DATA_DIR OUT_DIR PREFIX [DEVICE]
 *
 * takes the fixtures whose names begin with PREFIX and prints the largest difference of each. On the CPU it runs the
 * program, as a user would: `ffai inspect --token-ids --logits`. With a device ("cuda:0"; default "cpu") it does what
 * that command does through the C API, in one process, since beginning to use a GPU takes longer than a fixture; fast
 * precision must stay near then: KL divergence <= 1e-3 from exact. The module is $FFAI_CUDA_MODULE; without that it is
 * the tests' emulated one, which takes seconds for a fixture and runs every third of a group of more than FEW.
 *
 * Modes: the whole prompt at once; in chunks of 5; the second half token by token; three copies in a batch; and, on the
 * CPU and not in sanitizer builds, whole and token by token with plain C, AVX2 and NEON kernels, whole with AVX-VNNI
 * and the dot products of arm. A
 * fixture can say that only the first is defined ("modes": ["full"]). Limit everywhere: |difference| <= 1e-3. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE
#include "backend/cpu/kern.h"
#include "base/alloc.h"
#include "families/gen.h"
#include "families/harness.h"

#include <dirent.h>
#include <ffai.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const double LIMIT = 1e-3;
enum { FEW = 15 };

/* Largest difference of logits [T, V] to the golden columns: row t, column k of the golden is logits[t, (k * (V / C) +
 * 7 t) mod V]. */
static int compare(const fx_npy *o, const char *golden, long vocab, double *worst, long *row, fa_error *err) {
    fx_npy g;
    int rc = fx_npy_open(&g, golden, err);
    if (!rc && (o->rows != g.rows || o->cols != vocab))
        rc = fa_fail(err, FFAI_EFORMAT, "logits are [%ld, %ld], must be [%ld, %ld]", o->rows, o->cols, g.rows, vocab);
    *worst = 0;
    *row = -1;
    for (long t = 0; !rc && t < g.rows; t++) {
        for (long k = 0; k < g.cols; k++) {
            double d =
                fabs((double)fx_npy_at(o, t, (k * (vocab / g.cols) + 7 * t) % vocab) - (double)fx_npy_at(&g, t, k));
            if (!(d <= LIMIT) && *row < 0) *row = t;
            if (!(d <= *worst)) *worst = isnan(d) ? INFINITY : d;
        }
    }
    fx_npy_close(&g);
    return rc;
}

typedef struct mode {
    const char *name, *flag, *arg, *cpu; /* arg NULL: half the prompt */
    const char *threads;
    bool small; /* also for fixtures that only vary the config */
} mode;

static const mode modes[] = {{"full", NULL, "", NULL, "2", true},
                             {"chunk", "--chunk", "5", NULL, "3", false},
                             {"decode", "--decode-from", NULL, NULL, "2", false},
                             {"batch", "--batch", "3", NULL, "2", false},
                             {"full", NULL, "", "c", "1", false},
                             {"decode", "--decode-from", NULL, "c", "1", false},
                             {"full", NULL, "", "avx2", "2", false},
                             {"decode", "--decode-from", NULL, "avx2", "1", false},
                             {"full", NULL, "", "avxvnni", "2", false},
                             {"full", NULL, "", "neon", "2", false},
                             {"decode", "--decode-from", NULL, "neon", "1", false},
                             {"full", NULL, "", "neondot", "2", false}};

static const char *device = "cpu";
static bool few;
#ifdef FFAI_SANITIZED /* tests/kern has every kernel of every level under the sanitizers: families take the best ones  \
                       */
static const bool one_level = true;
#else
static const bool one_level = false;
#endif

/* Whether a mode's level runs here and has kernels of its own for these weights: avxvnni and neondot have, where some
 * are quantized.
 */
static bool level_counts(const char *cpu, const char *name) {
    fa_kernels k;
    const bool products = cpu && (!strcmp(cpu, "avxvnni") || !strcmp(cpu, "neondot"));
    if (products && strncmp(name, "mlx_", 4) && strncmp(name, "gguf_", 5)) return false;
    return !cpu || !fa_kernels_init(&k, cpu, NULL);
}

static bool defined_for(const fx *f, const char *name) {
    if (!strcmp(name, "full")) return true;
    for (const fa_jnode *m = fa_jfirst(fa_jget(f->root, "modes")); m; m = fa_jnext(m))
        if (!strcmp(fa_jstr(m, NULL) ? fa_jstr(m, NULL) : "", name)) return true;
    return false;
}

static const char *name_of(const mode *m, char buf[32]) {
    snprintf(buf, 32, "%s%s%s", m->name, m->cpu ? " cpu=" : "", m->cpu ? m->cpu : "");
    return buf;
}

/* Logits of one mode of one fixture against the golden; prints failures. */
static bool check(const fx *f, const char *name, const mode *m, const fx_npy *logits, double *worst) {
    fa_error err = {0};
    double d = INFINITY;
    long row = -1;
    char label[32];
    int rc = compare(logits, f->golden, (long)fa_jint(fa_jget(f->root, "vocab"), 0), &d, &row, &err);
    if (d > *worst) *worst = d;
    if (!rc && d <= LIMIT) return true;
    if (rc)
        printf("FAIL %s [%s]: %s\n", name, name_of(m, label), err.msg);
    else
        printf("FAIL %s [%s]: max difference %.3g, first at token %ld\n", name, name_of(m, label), d, row);
    return false;
}

/* ---- on the CPU: the program ---- */

/* One mode of one fixture; prints failures. */
static bool by_program(const fx *f, const char *name, const mode *m, const char *ffai, const char *model,
                       const char *dir, const char *ids, double *worst) {
    char out[700], log[700], half[24], msg[512], label[32];
    fa_error err = {0};
    fx_npy logits;
    snprintf(out, sizeof out, "%s/logits.npy", dir);
    snprintf(log, sizeof log, "%s/stderr.txt", dir);
    snprintf(half, sizeof half, "%zu", fa_jlen(fa_jget(f->root, "ids")) / 2);
    remove(out);
    enum { MAX_LORA = 4 };
    const char *argv[20 + 2 * MAX_LORA] = {
        ffai,  "inspect",   "-m",       model,   "--token-ids",          ids, "--logits", out, "--device",
        "cpu", "--threads", m->threads, m->flag, m->arg ? m->arg : half, NULL};
    char lora[MAX_LORA][700];
    int at = 0, k = 0;
    if (f->adapters) { /* before the mode's flag, which may be none */
        while (strcmp(argv[at], "--token-ids") != 0) at++;
        for (const fa_jnode *a = fa_jfirst(f->adapters); a && k < MAX_LORA; a = fa_jnext(a), k++)
            snprintf(lora[k], sizeof lora[k], "%s/adapter%d:%g", dir, k, fa_jnum(fa_jget(a, "scale"), 1));
        memmove(&argv[at + 2 * k], &argv[at], (20 - (size_t)at) * sizeof *argv);
        for (int i = 0; i < k; i++) {
            argv[at++] = "--lora";
            argv[at++] = lora[i];
        }
    }
    int status = fx_run((char *const *)(uintptr_t)argv, m->cpu, NULL, log, msg, sizeof msg);
    if (status) {
        printf("FAIL %s [%s]: exit %d: %s\n", name, name_of(m, label), status, msg);
        return false;
    }
    int rc = fx_npy_open(&logits, out, &err);
    if (rc) printf("FAIL %s [%s]: %s\n", name, name_of(m, label), err.msg);
    const bool good = !rc && check(f, name, m, &logits, worst);
    fx_npy_close(&logits);
    return good;
}

/* ---- on a device: the C API ---- */

/* One fixture there. Engines live as long as the fixture and are made when a mode asks for them. */
typedef struct on_device {
    const fx *f;
    const char *dir; /* where the adapters are */
    ffai_model *model;
    ffai_engine *exact, *exact_batch, *fast;
    int32_t *ids;
    int n;         /* ids, and rows of logits */
    long vocab;    /* columns */
    float *out[2]; /* [n, vocab] each: of the whole prompt at once, kept for fast(); of the mode that runs */
    bool whole;    /* the first is filled */
    float *to;     /* where rows of this run go */
    int seen;      /* how many came, -1: not in order or of another width */
} on_device;

static void on_row(void *user, int64_t row, const float *logits, int64_t vocab) {
    on_device *d = (on_device *)user;
    if (row != d->seen || row >= d->n || vocab != d->vocab)
        d->seen = -1;
    else
        memcpy(d->to + d->seen++ * vocab, logits, (size_t)vocab * sizeof *logits);
}

static int device_open(on_device *d, const fx *f, const char *path, const char *dir, fa_error *err) {
    d->f = f;
    d->dir = dir;
    const fa_jnode *ids = fa_jget(f->root, "ids");
    int rc = ffai_model_open(&d->model, path, NULL, err);
    if (rc) return rc;
    ffai_model_info in;
    ffai_model_get_info(d->model, &in);
    d->n = (int)fa_jlen(ids);
    d->vocab = (long)in.vocab;
    d->ids = FA_NEWN(int32_t, (size_t)d->n + 1);
    for (int i = 0; i < 2; i++) d->out[i] = FA_NEWN(float, (size_t)d->n *(size_t)d->vocab + 1);
    if (!d->ids || !d->out[0] || !d->out[1]) return fa_fail(err, FFAI_ENOMEM, "no memory for the logits");
    int n = 0;
    for (const fa_jnode *i = fa_jfirst(ids); i; i = fa_jnext(i)) d->ids[n++] = (int32_t)fa_jint(i, 0);
    return 0;
}

static void device_close(on_device *d) {
    ffai_engine_free(d->exact);
    ffai_engine_free(d->exact_batch);
    ffai_engine_free(d->fast);
    ffai_model_free(d->model);
    fa_free(d->ids);
    for (int i = 0; i < 2; i++) fa_free(d->out[i]);
}

static int use_adapters(const on_device *d, ffai_engine *e, fa_error *err) {
    ffai_adapter_use use[8];
    size_t n = 0;
    int rc = 0;
    for (const fa_jnode *a = fa_jfirst(d->f->adapters); a && !rc && n < 8; a = fa_jnext(a), n++) {
        char path[700];
        snprintf(path, sizeof path, "%s/adapter%zu", d->dir, n);
        use[n].scale = (float)fa_jnum(fa_jget(a, "scale"), 1);
        rc = ffai_adapter_load(&use[n].adapter, e, path, err);
    }
    return rc ? rc : ffai_engine_use_adapters(e, use, n, err);
}

/* What `ffai inspect` does: an engine just large enough, then the ids through it. */
static int device_eval(on_device *d, ffai_engine **e, const char *precision, ffai_eval_opts *ev, float *to,
                       fx_npy *logits, fa_error *err) {
    int rc = 0;
    *logits = (fx_npy){.data = (const uint8_t *)to, .rows = d->n, .cols = d->vocab};
    const bool fresh = !*e;
    if (fresh)
        rc = ffai_engine_create(e, d->model,
                                &(ffai_engine_opts){.device = device,
                                                    .cuda_module = getenv("FFAI_CUDA_MODULE"),
                                                    .precision = precision,
                                                    .n_ctx = d->n,
                                                    .n_slot = ev->batch},
                                err);
    if (!rc && fresh) rc = use_adapters(d, *e, err);
    d->seen = 0;
    d->to = to;
    ev->ids = d->ids;
    ev->n_ids = (size_t)d->n;
    ev->logits = on_row;
    ev->user = d;
    if (!rc) rc = ffai_eval(*e, ev, err);
    if (!rc && d->seen != d->n)
        rc =
            fa_fail(err, FFAI_EINTERNAL, "%d rows of logits came in order, must be %d of %ld", d->seen, d->n, d->vocab);
    return rc;
}

static bool by_api(on_device *d, const fx *f, const char *name, const mode *m, double *worst) {
    const int arg = m->arg ? atoi(m->arg) : d->n / 2;
    const bool whole = !m->flag, batch = m->flag && !strcmp(m->flag, "--batch");
    ffai_eval_opts ev = {.batch = batch ? arg : 1};
    fa_error err = {0};
    fx_npy logits;
    if (m->flag && !strcmp(m->flag, "--chunk")) ev.chunk = arg;
    if (m->flag && !strcmp(m->flag, "--decode-from")) ev.decode_from = arg;
    int rc = device_eval(d, batch ? &d->exact_batch : &d->exact, "exact", &ev, d->out[!whole], &logits, &err);
    if (rc) printf("FAIL %s [%s]: %s\n", name, m->name, err.msg);
    if (whole) d->whole = !rc;
    return !rc && check(f, name, m, &logits, worst);
}

/* Mean Kullback-Leibler divergence of softmax(b) from softmax(a) over rows. */
static double divergence(const fx_npy *a, const fx_npy *b) {
    double sum = 0;
    for (long t = 0; t < a->rows; t++) {
        double ma = -INFINITY, mb = -INFINITY, za = 0, zb = 0;
        for (long i = 0; i < a->cols; i++)
            ma = fmax(ma, (double)fx_npy_at(a, t, i)), mb = fmax(mb, (double)fx_npy_at(b, t, i));
        for (long i = 0; i < a->cols; i++)
            za += exp((double)fx_npy_at(a, t, i) - ma), zb += exp((double)fx_npy_at(b, t, i) - mb);
        for (long i = 0; i < a->cols; i++) {
            const double la = (double)fx_npy_at(a, t, i) - ma - log(za), lb = (double)fx_npy_at(b, t, i) - mb - log(zb);
            sum += exp(la) * (la - lb);
        }
    }
    return sum / (double)a->rows;
}

/* Fast precision against the exact logits of the whole prompt, both of the device. */
static bool fast(on_device *d, const char *name, double *kl) {
    const fx_npy exact = {.data = (const uint8_t *)d->out[0], .rows = d->n, .cols = d->vocab};
    ffai_eval_opts ev = {.batch = 1};
    fa_error err = {0};
    fx_npy logits;
    *kl = INFINITY;
    int rc = d->whole ? device_eval(d, &d->fast, "fast", &ev, d->out[1], &logits, &err)
                      : fa_fail(&err, FFAI_EINVAL, "there are no exact logits to compare with");
    if (!rc) *kl = divergence(&exact, &logits);
    if (rc)
        printf("FAIL %s [fast]: %s\n", name, err.msg);
    else if (!(*kl <= 1e-3))
        printf("FAIL %s [fast]: KL divergence %.3g from exact\n", name, *kl);
    return !rc && *kl <= 1e-3;
}

/* ---- fixtures ---- */

/* All modes of one fixture. Returns how many failed. */
static int fixture(const char *ffai, const char *data, const char *out_dir, const char *name) {
    fx f;
    fa_error err = {0};
    char dir[600], model[512];
    const bool gpu = strcmp(device, "cpu") != 0;
    on_device d = {0};
    fa_buf ids = {0};
    int bad = 0, ran = 0;
    double worst = 0;
    snprintf(dir, sizeof dir, "%s/%s", out_dir, name);
    mkdir(dir, 0777);
    int rc = fx_open(&f, data, name, &err);
    static int n_twin, n_own; /* a twin varies a config only */
    if (!rc && few && (f.twin ? n_twin++ : n_own++) % 3) {
        fx_close(&f);
        return 0;
    }
    if (!rc) rc = fx_write(&f, dir, model, &err);
    if (!rc && gpu) rc = device_open(&d, &f, model, dir, &err);
    if (rc) {
        printf("FAIL %s: %s\n", name, err.msg);
        device_close(&d);
        fx_close(&f);
        return 1;
    }
    for (const fa_jnode *i = fa_jfirst(fa_jget(f.root, "ids")); i; i = fa_jnext(i))
        fa_buf_printf(&ids, "%s%d", ids.len ? "," : "", (int)fa_jint(i, 0));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        const mode *m = &modes[i];
        if ((f.twin && !m->small) || !defined_for(&f, m->name) || (m->cpu && (gpu || one_level)) ||
            !level_counts(m->cpu, name))
            continue;
        ran++;
        bad += !(gpu ? by_api(&d, &f, name, m, &worst) : by_program(&f, name, m, ffai, model, dir, ids.data, &worst));
    }
    double kl = 0;
    if (gpu && !f.twin) ran++, bad += !fast(&d, name, &kl);
    printf("%s %-32s max difference %.2e over %d runs", bad ? "FAIL" : "ok  ", name, worst, ran);
    printf(kl != 0 ? ", fast KL %.2e\n" : "\n", kl);
    fflush(stdout);
    fa_buf_free(&ids);
    device_close(&d);
    fx_close(&f);
    return bad;
}

static const char *prefix;

static int wanted(const struct dirent *e) { return e->d_name[0] != '.' && !strncmp(e->d_name, prefix, strlen(prefix)); }

int main(int argc, char **argv) {
    struct dirent **list;
    int bad = 0;
    bool emulated = false;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: parity FFAI DATA_DIR OUT_DIR PREFIX [DEVICE]\n");
        return 2;
    }
    if (argc > 5) device = argv[5];
#ifdef FFAI_CUDA_EMU_MODULE
    if (strcmp(device, "cpu") && !getenv("FFAI_CUDA_MODULE")) {
        emulated = true;
        setenv("FFAI_CUDA_MODULE", FFAI_CUDA_EMU_MODULE, 1);
    }
#endif
    mkdir(argv[3], 0777);
    prefix = argv[4];
    const int n = scandir(argv[2], &list, wanted, alphasort);
    few = emulated && n > FEW;
    for (int i = 0; i < n; i++) {
        bad += fixture(argv[1], argv[2], argv[3], list[i]->d_name);
        free(list[i]);
    }
    if (n >= 0) free(list);
    printf("%d fixtures beginning with \"%s\", %d failures\n", n > 0 ? n : 0, prefix, bad);
    return bad || n <= 0;
}
