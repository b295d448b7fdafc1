/* Parity with the official implementation: `ffai inspect --token-ids --logits` on every tiny checkpoint of
 * tests/data/families, in exact precision, against logits that transformers computed in float32. Runs the program, as a
 * user would.
 *
 *     parity FFAI DATA_DIR OUT_DIR PREFIX [DEVICE]
 *
 * takes the fixtures whose names begin with PREFIX and prints the largest difference of each. With a device ("cuda:0";
 * default "cpu") all of it happens there, and fast precision must stay near: KL divergence <= 1e-3 from exact. Its
 * module is $FFAI_CUDA_MODULE; without that it is the tests' emulated one, which is slow and runs fewer: two of three
 * fixtures only whole and token by token, and every fourth of those that only vary a config.
 *
 * Modes: the whole prompt at once; in chunks of 5; the second half token by token; three copies in a batch; and the
 * first two with plain C and AVX2 kernels (CPU only). A fixture can say that only the first is defined ("modes":
 * ["full"]). Limit everywhere: |difference| <= 1e-3. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE
#include "families/gen.h"
#include "families/harness.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const double LIMIT = 1e-3;

/* Largest difference of logits [T, V] to the golden columns: row t, column k of the golden is logits[t, (k * (V / C) +
 * 7 t) mod V]. */
static int compare(const char *out, const char *golden, long vocab, double *worst, long *row, fa_error *err) {
    fx_npy o, g = {0};
    int rc = fx_npy_open(&o, out, err);
    if (!rc) rc = fx_npy_open(&g, golden, err);
    if (!rc && (o.rows != g.rows || o.cols != vocab))
        rc = fa_fail(err, FFAI_EFORMAT, "logits are [%ld, %ld], must be [%ld, %ld]", o.rows, o.cols, g.rows, vocab);
    *worst = 0;
    *row = -1;
    for (long t = 0; !rc && t < g.rows; t++) {
        for (long k = 0; k < g.cols; k++) {
            double d =
                fabs((double)fx_npy_at(&o, t, (k * (vocab / g.cols) + 7 * t) % vocab) - (double)fx_npy_at(&g, t, k));
            if (!(d <= LIMIT) && *row < 0) *row = t;
            if (!(d <= *worst)) *worst = isnan(d) ? INFINITY : d;
        }
    }
    fx_npy_close(&o);
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
                             {"decode", "--decode-from", NULL, "avx2", "1", false}};

static const char *device = "cpu";
static bool few;

static bool has_avx2(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

static bool defined_for(const fx *f, const char *name) {
    if (!strcmp(name, "full")) return true;
    for (const fa_jnode *m = fa_jfirst(fa_jget(f->root, "modes")); m; m = fa_jnext(m))
        if (!strcmp(fa_jstr(m, NULL) ? fa_jstr(m, NULL) : "", name)) return true;
    return false;
}

/* One mode of one fixture; prints failures. */
static bool one(const fx *f, const char *name, const mode *m, const char *ffai, const char *model, const char *dir,
                const char *ids, double *worst) {
    char out[700], log[700], half[24], msg[512];
    fa_error err = {0};
    double d = INFINITY;
    long row = -1;
    snprintf(out, sizeof out, "%s/logits.npy", dir);
    snprintf(log, sizeof log, "%s/stderr.txt", dir);
    snprintf(half, sizeof half, "%zu", fa_jlen(fa_jget(f->root, "ids")) / 2);
    remove(out);
    const char *argv[] = {ffai, "inspect",  "-m",   model,       "--token-ids", ids,     "--logits",
                          out,  "--device", device, "--threads", m->threads,    m->flag, m->arg ? m->arg : half,
                          NULL};
    int status = fx_run((char *const *)(uintptr_t)argv, m->cpu, NULL, log, msg, sizeof msg);
    if (status) {
        printf("FAIL %s [%s%s%s]: exit %d: %s\n", name, m->name, m->cpu ? " cpu=" : "", m->cpu ? m->cpu : "", status,
               msg);
        return false;
    }
    int rc = compare(out, f->golden, (long)fa_jint(fa_jget(f->root, "vocab"), 0), &d, &row, &err);
    if (d > *worst) *worst = d;
    if (!rc && d <= LIMIT) return true;
    printf("FAIL %s [%s%s%s]: ", name, m->name, m->cpu ? " cpu=" : "", m->cpu ? m->cpu : "");
    if (rc)
        printf("%s\n", err.msg);
    else
        printf("max difference %.3g, first at token %ld\n", d, row);
    return false;
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

/* Fast precision against exact, both on the device. */
static bool fast(const char *name, const char *ffai, const char *model, const char *dir, const char *ids, double *kl) {
    static const char *const precision[2] = {"exact", "fast"};
    char out[2][700], log[700], msg[512];
    fx_npy x[2];
    fa_error err = {0};
    int rc = 0;
    *kl = INFINITY;
    memset(x, 0, sizeof x);
    snprintf(log, sizeof log, "%s/stderr.txt", dir);
    for (int i = 0; i < 2 && !rc; i++) {
        snprintf(out[i], sizeof out[i], "%s/%s.npy", dir, precision[i]);
        remove(out[i]);
        const char *argv[] = {ffai,   "inspect",  "-m",   model,         "--token-ids", ids, "--logits",
                              out[i], "--device", device, "--precision", precision[i],  NULL};
        rc = fx_run((char *const *)(uintptr_t)argv, NULL, NULL, log, msg, sizeof msg);
        if (rc)
            printf("FAIL %s [%s]: exit %d: %s\n", name, precision[i], rc, msg);
        else if ((rc = fx_npy_open(&x[i], out[i], &err)))
            printf("FAIL %s [%s]: %s\n", name, precision[i], err.msg);
    }
    if (!rc && x[0].rows == x[1].rows && x[0].cols == x[1].cols) *kl = divergence(&x[0], &x[1]);
    for (int i = 0; i < 2; i++) fx_npy_close(&x[i]);
    if (!rc && !(*kl <= 1e-3)) printf("FAIL %s [fast]: KL divergence %.3g from exact\n", name, *kl);
    return !rc && *kl <= 1e-3;
}

/* All modes of one fixture. Returns how many failed. */
static int fixture(const char *ffai, const char *data, const char *out_dir, const char *name) {
    fx f;
    fa_error err = {0};
    char dir[600], model[512];
    fa_buf ids = {0};
    int bad = 0, ran = 0;
    double worst = 0;
    snprintf(dir, sizeof dir, "%s/%s", out_dir, name);
    mkdir(dir, 0777);
    int rc = fx_open(&f, data, name, &err);
    static int n_twin, n_own;
    if (!rc && few && f.twin && n_twin++ % 4) {
        fx_close(&f);
        return 0;
    }
    const bool brief = few && !rc && !f.twin && n_own++ % 3;
    if (!rc) rc = fx_write(&f, dir, model, &err);
    if (rc) {
        printf("FAIL %s: %s\n", name, err.msg);
        fx_close(&f);
        return 1;
    }
    for (const fa_jnode *i = fa_jfirst(fa_jget(f.root, "ids")); i; i = fa_jnext(i))
        fa_buf_printf(&ids, "%s%d", ids.len ? "," : "", (int)fa_jint(i, 0));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        const mode *m = &modes[i];
        if ((f.twin && !m->small) || !defined_for(&f, m->name) || (m->cpu && !strcmp(m->cpu, "avx2") && !has_avx2()) ||
            (m->cpu && strcmp(device, "cpu")) || (brief && m->flag && strcmp(m->name, "decode") != 0))
            continue;
        ran++;
        bad += !one(&f, name, m, ffai, model, dir, ids.data, &worst);
    }
    double kl = 0;
    if (strcmp(device, "cpu") && !f.twin && !brief) ran++, bad += !fast(name, ffai, model, dir, ids.data, &kl);
    printf("%s %-32s max difference %.2e over %d runs", bad ? "FAIL" : "ok  ", name, worst, ran);
    printf(kl != 0 ? ", fast KL %.2e\n" : "\n", kl);
    fflush(stdout);
    fa_buf_free(&ids);
    fx_close(&f);
    return bad;
}

int main(int argc, char **argv) {
    struct dirent **list;
    int bad = 0, seen = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: parity FFAI DATA_DIR OUT_DIR PREFIX [DEVICE]\n");
        return 2;
    }
    if (argc > 5) device = argv[5];
#ifdef FFAI_CUDA_EMU_MODULE
    if (strcmp(device, "cpu") && !getenv("FFAI_CUDA_MODULE")) {
        few = true;
        setenv("FFAI_CUDA_MODULE", FFAI_CUDA_EMU_MODULE, 1);
    }
#endif
    mkdir(argv[3], 0777);
    int n = scandir(argv[2], &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (list[i]->d_name[0] != '.' && !strncmp(list[i]->d_name, argv[4], strlen(argv[4]))) {
            seen++;
            bad += fixture(argv[1], argv[2], argv[3], list[i]->d_name);
        }
        free(list[i]);
    }
    if (n >= 0) free(list);
    printf("%d fixtures beginning with \"%s\", %d failures\n", seen, argv[4], bad);
    return bad || !seen;
}
