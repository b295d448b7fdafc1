/* Model and engine from the common flags. */
#define _POSIX_C_SOURCE 200809L
#include "cli/session.h"
#include "cli/hub.h"
#include "cli/limits.h"
#include "cli/out.h"
#include "cli/term.h"
#include "cli/text_in.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int session_model(const cli_opts *o, bool tokenizer_only, ffai_model **m) {
    ffai_error err;
    *m = NULL;
    int rc = cli_require(o, OPT_MODEL);
    if (rc) return rc;
    char *template = NULL, *path = NULL;
    size_t len;
    if (cli_has(o, OPT_TEMPLATE)) rc = text_read(o, OPT_TEMPLATE, cli_str(o, OPT_TEMPLATE, ""), &template, &len);
    if (rc) return rc;
    ffai_model_opts mo = {.chat_template = template,
                          .weights = cli_str(o, OPT_WEIGHTS, NULL),
                          .tokenizer_only = tokenizer_only,
                          .synthetic = cli_str(o, OPT_SYNTHETIC, NULL)};
    rc = hub_path(o, cli_str(o, OPT_MODEL, ""), tokenizer_only || mo.synthetic, &path);
    if (!rc && ffai_model_open(m, path, &mo, &err) != 0) rc = cli_fail(o, "%s", err.msg);
    free(template);
    free(path);
    if (rc) return rc;
    if (tokenizer_only) return 0;
    ffai_model_info in;
    char size[16];
    ffai_model_get_info(*m, &in);
    if (*in.extra) term_note("%s: tensors that %s does not know: %s", in.path, in.family, in.extra);
    if (*in.widened)
        term_note("%s: held as f16 or f32, as their groups of columns fit no format: %s", in.path, in.widened);
    term_detail("%s: %s, %s, %s", in.path, in.family, in.format, out_bytes(size, (double)in.weight_bytes));
    return 0;
}

ffai_engine_opts session_engine_opts(const cli_opts *o) {
    ffai_engine_opts eo;
    memset(&eo, 0, sizeof eo);
    eo.device = cli_str(o, OPT_DEVICE, NULL);
    eo.precision = cli_str(o, OPT_PRECISION, NULL);
    eo.kv_cache = cli_str(o, OPT_KV_CACHE, NULL);
    eo.n_thread = (int)cli_int(o, OPT_THREADS, 0);
    eo.pin = cli_str(o, OPT_PIN, NULL);
    eo.n_ctx = (int)cli_int(o, OPT_CTX, 0);
    eo.profile = cli_has(o, OPT_PROFILE);
    eo.cpu = getenv("FFAI_CPU"); /* the library reads no environment itself */
    eo.cuda_module = getenv("FFAI_CUDA_MODULE");
    return eo;
}

/* FILE[:SCALE]: the scale, and the length of FILE. A file whose name ends so is a file. */
static int lora_scale(const cli_opts *o, opt_id id, const char *s, float *scale, size_t *len) {
    const char *colon = strrchr(s, ':');
    char *end = NULL;
    struct stat st;
    *scale = 1;
    *len = strlen(s);
    if (!colon || stat(s, &st) == 0) return 0;
    double v = strtod(colon + 1, &end);
    if (end == colon + 1 || *end) return 0;
    if (!isfinite(v))
        return cli_usage(o, "--%s: the scale \"%s\" is no finite number", cli_options[id].name, colon + 1);
    *scale = (float)v;
    *len = (size_t)(colon - s);
    return 0;
}

int session_adapter(const cli_opts *o, opt_id id, const char *given, ffai_engine *e, ffai_adapter_use *use) {
    ffai_error err;
    size_t len;
    int rc = lora_scale(o, id, given, &use->scale, &len);
    if (rc) return rc;
    char *name = strndup(given, len), *path = NULL;
    if (!name) return cli_fail(o, "--%s: out of memory", cli_options[id].name);
    rc = hub_path(o, name, false, &path);
    if (!rc && ffai_adapter_load(&use->adapter, e, path, &err))
        rc = cli_fail(o, "--%s: %s", cli_options[id].name, err.msg);
    free(name);
    free(path);
    if (rc) return rc;
    ffai_adapter_info in;
    char bytes[16];
    ffai_adapter_get_info(use->adapter, &in);
    term_detail("%s: %s adapter, %lld matrices, rank %lld, %s, scale %g", in.path, in.kind, (long long)in.n_matrix,
                (long long)in.rank, out_bytes(bytes, (double)in.bytes), (double)use->scale);
    return 0;
}

/* --lora: all of them, for everything that the engine does. */
static int load_adapters(const cli_opts *o, ffai_engine *e) {
    const cli_value *v = &o->v[OPT_LORA];
    ffai_error err;
    int rc = 0;
    if (!v->n) return 0;
    ffai_adapter_use *use = (ffai_adapter_use *)calloc(v->n, sizeof *use);
    if (!use) return cli_fail(o, "--lora: out of memory");
    for (size_t i = 0; i < v->n && !rc; i++) rc = session_adapter(o, OPT_LORA, v->strs[i], e, &use[i]);
    if (!rc && ffai_engine_use_adapters(e, use, v->n, &err)) rc = cli_fail(o, "--lora: %s", err.msg);
    free(use);
    return rc;
}

int session_engine(const cli_opts *o, ffai_model *m, const ffai_engine_opts *eo, ffai_engine **e) {
    ffai_error err;
    if (ffai_engine_create(e, m, eo, &err)) return cli_fail(o, "%s", err.msg);
    int rc = load_adapters(o, *e);
    if (rc) {
        ffai_engine_free(*e);
        *e = NULL;
        return rc;
    }
    ffai_engine_info in;
    ffai_engine_get_info(*e, &in);
    char bytes[16], threads[32] = "", cores[96];
    if (*in.passed_over) term_detail("no GPU is used: %s", in.passed_over);
    if (!strcmp(in.device, "cpu")) {
        snprintf(threads, sizeof threads, ", %d threads", in.n_thread);
        ffai_device_info d;
        if (cli_has(o, OPT_VERBOSE) && ffai_device_at(0, eo, &d, NULL) == 1)
            term_detail("processors: %s; pin %s", device_cores(&d, cores, sizeof cores), in.pin);
    }
    term_detail("%s (%s)%s, %s, kv cache %s, context %d, %s", in.device, in.isa, threads, in.precision, in.kv_cache,
                in.n_ctx, out_bytes(bytes, (double)in.device_bytes));
    return 0;
}

/* What the kernels of a GPU took; their bytes and operations are known for the whole operation only. */
static void kernel_profile(const ffai_engine *e, size_t first, double total) {
    static const char *const head[] = {"kernel", "operation", "calls", "seconds", "share"};
    ffai_profile_row r;
    out_table t;
    out_table_begin(&t, head, "llrrr");
    for (int i = 0; ffai_engine_profile(e, first + (size_t)i, &r); i++) {
        out_cell(&t, i, 0, "%s", r.kernel);
        out_cell(&t, i, 1, "%s", r.op);
        out_cell(&t, i, 2, "%lld", (long long)r.calls);
        out_cell(&t, i, 3, "%.4f", r.seconds);
        out_cell(&t, i, 4, "%.1f %%", total > 0 ? 100 * r.seconds / total : 0);
    }
    fputc('\n', stderr);
    out_table_end(&t, stderr);
}

/* Seconds that the limits of the device leave to what an operation read and computed; *what is the one that binds. */
static double at_limit(const session_limits *l, const ffai_profile_row *r, const char **what) {
    const bool vectors = !strcmp(r->op, "attend"); /* its products are f32 in either precision */
    const double rate = vectors ? l->f32_ops_s : l->matrix_ops_s;
    const double read = l->read_bytes_s > 0 ? r->bytes / l->read_bytes_s : 0, ops = rate > 0 ? r->flops / rate : 0;
    *what = read == 0 && ops == 0 ? "" : read >= ops ? "memory" : "products";
    return read >= ops ? read : ops;
}

/* One row of the roofline. Share of the limit: how much of the time the device's limits would need for this alone. */
static void roofline_cells(out_table *t, int row, const session_limits *l, const ffai_profile_row *r) {
    const char *what;
    const double limit = at_limit(l, r, &what);
    out_cell(t, row, 6, "%.2f", 1e-6 * r->bytes / (double)r->calls);
    out_cell(t, row, 7, "%.2f", 1e-6 * r->flops / (double)r->calls);
    out_cell(t, row, 8, "%.4f", limit);
    out_cell(t, row, 9, "%.1f %%", r->seconds > 0 ? 100 * limit / r->seconds : 0);
    out_cell(t, row, 10, "%s", what);
}

void session_profile(const cli_opts *o, const ffai_engine *e, const session_limits *l) {
    static const char *const head[] = {"operation", "calls", "seconds", "share", "GB/s", "Gop/s"};
    static const char *const roofline[] = {"operation", "calls",    "seconds",  "share",   "GB/s", "Gop/s",
                                           "MB/call",   "Mop/call", "at limit", "reached", "bound"};
    ffai_profile_row r;
    double total = 0;
    if (!cli_has(o, OPT_PROFILE)) return;
    for (size_t i = 0; ffai_engine_profile(e, i, &r) && !r.kernel; i++) total += r.seconds;
    out_table t;
    out_table_begin(&t, l ? roofline : head, l ? "lrrrrrrrrrl" : "lrrrrr");
    size_t i = 0;
    for (int row = 0; ffai_engine_profile(e, i, &r) && !r.kernel; i++) {
        if (!r.calls) continue;
        out_cell(&t, row, 0, "%s", r.op);
        out_cell(&t, row, 1, "%lld", (long long)r.calls);
        out_cell(&t, row, 2, "%.4f", r.seconds);
        out_cell(&t, row, 3, "%.1f %%", total > 0 ? 100 * r.seconds / total : 0);
        out_cell(&t, row, 4, "%.1f", r.seconds > 0 ? r.bytes / r.seconds * 1e-9 : 0);
        out_cell(&t, row, 5, "%.1f", r.seconds > 0 ? r.flops / r.seconds * 1e-9 : 0);
        if (l) roofline_cells(&t, row, l, &r);
        row++;
    }
    fflush(stdout);
    out_table_end(&t, stderr);
    if (r.kernel) kernel_profile(e, i, total);
}
