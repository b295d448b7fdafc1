#define _POSIX_C_SOURCE 200809L
/* ffai bench: prefill and decode speed at several lengths and batches. */
#include "cli/commands.h"
#include "cli/limits.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/term.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct result {
    const char *phase;
    int64_t length, batch;
    double tok_s, tok_s_min, tok_s_max, share_bandwidth, share_matrix;
    double host_us; /* GPU, decode: of the host's time for a step, 0: unknown */
} result;

typedef struct bench {
    const cli_opts *o;
    ffai_model *m;
    ffai_device_rates lim;
    char measured[16]; /* whose limits these are */
    int64_t n_gen, n_rep;
    result *row;
    int n_row;
} bench;

/* Speeds for machines are the result by themselves: then the limits go to stderr. */
static void print_limits(const cli_opts *o, const ffai_device_rates *l) {
    out_json j;
    bool speeds = cli_has(o, OPT_MODEL), csv = cli_has(o, OPT_CSV);
    if (csv && !speeds) {
        device_limits_csv(l);
        return;
    }
    if (speeds || !cli_has(o, OPT_JSON)) {
        device_limits_text(speeds && (csv || cli_has(o, OPT_JSON)) ? stderr : stdout, l, "", 11);
        return;
    }
    out_json_begin(&j, stdout, true);
    out_json_open(&j, NULL, '{');
    device_limits_json(&j, l);
    out_json_close(&j, '}');
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of matrix products in fast precision */
static double fast_rate(const ffai_device_rates *l) { return l->bf16_ops_s > 0 ? l->bf16_ops_s : l->int8_ops_s; }

/* speed[n_rep] in tokens per second; cost of one step: bytes and operations, `steps` of them give `tokens`. */
static void add_result(bench *b, const char *phase, int64_t length, int64_t batch, double *speed,
                       double steps_per_token, double bytes, double flops, bool exact) {
    qsort(speed, (size_t)b->n_rep, sizeof *speed, by_value);
    size_t n = (size_t)b->n_rep;
    result *r = &b->row[b->n_row++];
    *r = (result){.phase = phase, .length = length, .batch = batch, .tok_s_min = speed[0], .tok_s_max = speed[n - 1]};
    r->tok_s = n % 2 ? speed[n / 2] : 0.5 * (speed[n / 2 - 1] + speed[n / 2]);
    double steps_s = r->tok_s * steps_per_token;
    double rate = exact ? b->lim.f32_ops_s : fast_rate(&b->lim);
    r->share_bandwidth = b->lim.read_bytes_s > 0 ? steps_s * bytes / b->lim.read_bytes_s : 0;
    r->share_matrix = rate > 0 ? steps_s * flops / rate : 0;
}

static int time_steps(bench *b, ffai_engine *e, int64_t batch, int64_t depth, int64_t n_tok, int64_t n_step,
                      double *seconds, double *total) {
    ffai_error err;
    if (ffai_bench(e, (int)batch, (int)depth, (int)n_tok, (int)n_step, seconds, &err))
        return cli_fail(b->o, "%s", err.msg);
    if (term_interrupted()) return cli_fail(b->o, "interrupted");
    *total = 0;
    for (int64_t i = 0; i < n_step; i++) *total += seconds[i];
    return 0;
}

static int measure(bench *b, ffai_engine *e, const ffai_plan *plan, int64_t length, int64_t batch, double *seconds,
                   double *speed) {
    ffai_engine_info in;
    ffai_engine_get_info(e, &in);
    bool exact = !strcmp(in.precision, "exact");
    double total = 0;
    /* A first round that is not counted: pages come in, programs are recorded. */
    int rc = time_steps(b, e, batch, 0, length, 1, seconds, &total);
    for (int64_t i = 0; !rc && i < b->n_rep; i++) {
        rc = time_steps(b, e, batch, 0, length, 1, seconds, &total);
        speed[i] = total > 0 ? (double)(length * batch) / total : 0;
    }
    if (rc) return rc;
    /* The plan's prefill step is one chunk of n_chunk rows. */
    add_result(b, "prefill", length, batch, speed, 1.0 / (double)plan->n_chunk, plan->prefill_bytes,
               plan->prefill_flops, exact);
    rc = time_steps(b, e, batch, 0, 1, b->n_gen < 4 ? b->n_gen : 4, seconds, &total); /* not counted either */
    for (int64_t i = 0; !rc && i < b->n_rep; i++) {
        rc = time_steps(b, e, batch, length, 1, b->n_gen, seconds, &total);
        speed[i] = total > 0 ? (double)(b->n_gen * batch) / total : 0;
    }
    if (rc) return rc;
    add_result(b, "decode", length, batch, speed, 1.0 / (double)batch, plan->decode_bytes, plan->decode_flops, exact);
    ffai_engine_stats st;
    ffai_engine_get_stats(e, &st);
    if (st.host_steps) b->row[b->n_row - 1].host_us = 1e6 * st.host_s / (double)st.host_steps;
    return 0;
}

/* Limits of the device that an engine runs on. */
static int know_limits(bench *b, const char *device) {
    if (!strcmp(b->measured, device)) return 0;
    snprintf(b->measured, sizeof b->measured, "%s", device);
    term_detail("limits of %s", device);
    return device_limits_measure(b->o, device, &b->lim);
}

/* What a step costs as it is run here: `rows` of the prompt at once, and tokens in the middle of those to come. */
static int plan_steps(bench *b, const ffai_engine *e, int64_t length, int64_t batch, ffai_plan *plan) {
    ffai_error err;
    ffai_engine_info in;
    ffai_engine_opts eo = session_engine_opts(b->o);
    ffai_engine_get_info(e, &in);
    int64_t piece = (in.n_chunk + batch) / batch < in.n_chunk ? (in.n_chunk + batch) / batch : in.n_chunk;
    eo.device = in.device;
    eo.n_slot = (int)batch;
    eo.n_ctx = (int)(length + (b->n_gen + 1) / 2);
    eo.n_chunk = (int)((length < piece ? length : piece) * batch);
    return ffai_engine_plan(b->m, &eo, plan, &err) ? cli_fail(b->o, "%s", err.msg) : 0;
}

/* Which rate products are held against: on a CPU f32 in exact precision and for weights that are not quantized. */
static void profile(const bench *b, const ffai_engine *e) {
    ffai_engine_info in;
    ffai_model_info mi;
    ffai_engine_get_info(e, &in);
    ffai_model_get_info(b->m, &mi);
    const char *f = mi.format ? mi.format : "";
    const bool floats = !strcmp(f, "f32") || !strcmp(f, "f16") || !strcmp(f, "bf16"), gpu = b->lim.bf16_ops_s > 0,
               slow = !strcmp(in.precision, "exact") || (floats && !gpu);
    const session_limits l = {b->lim.read_bytes_s, slow ? b->lim.f32_ops_s : fast_rate(&b->lim), b->lim.f32_ops_s};
    session_profile(b->o, e, &l);
}

static int bench_one(bench *b, int64_t length, int64_t batch, double *seconds, double *speed) {
    ffai_engine *e = NULL;
    ffai_engine_info in;
    ffai_plan plan;
    ffai_engine_opts eo = session_engine_opts(b->o);
    if (!eo.n_ctx) eo.n_ctx = (int)(length + b->n_gen);
    eo.n_slot = (int)batch;
    term_detail("length %lld, batch %lld", (long long)length, (long long)batch);
    int rc = session_engine(b->o, b->m, &eo, &e);
    if (!rc) {
        ffai_engine_get_info(e, &in);
        rc = know_limits(b, in.device);
    }
    if (!rc) rc = plan_steps(b, e, length, batch, &plan);
    if (!rc) rc = measure(b, e, &plan, length, batch, seconds, speed);
    if (e) profile(b, e);
    ffai_engine_free(e);
    return rc;
}

/* ---- reports ---- */

static void report_json(const bench *b) {
    out_json j;
    out_json_begin(&j, stdout, true);
    out_json_open(&j, NULL, '[');
    for (int i = 0; i < b->n_row; i++) {
        const result *r = &b->row[i];
        out_json_open(&j, NULL, '{');
        out_json_str(&j, "phase", r->phase);
        out_json_int(&j, "length", r->length);
        out_json_int(&j, "batch", r->batch);
        out_json_num(&j, "tok_s", r->tok_s);
        out_json_num(&j, "tok_s_min", r->tok_s_min);
        out_json_num(&j, "tok_s_max", r->tok_s_max);
        out_json_num(&j, "share_bandwidth", r->share_bandwidth);
        out_json_num(&j, "share_matrix", r->share_matrix);
        if (r->host_us > 0) out_json_num(&j, "host_us", r->host_us);
        out_json_close(&j, '}');
    }
    out_json_close(&j, ']');
}

static void report_csv(const bench *b) {
    puts("phase,length,batch,tok_s,tok_s_min,tok_s_max,share_bandwidth,share_matrix,host_us");
    for (int i = 0; i < b->n_row; i++) {
        const result *r = &b->row[i];
        printf("%s,%lld,%lld,%.2f,%.2f,%.2f,%.4f,%.4f,%.1f\n", r->phase, (long long)r->length, (long long)r->batch,
               r->tok_s, r->tok_s_min, r->tok_s_max, r->share_bandwidth, r->share_matrix, r->host_us);
    }
}

static int report_table(const bench *b) {
    static const char *const head[] = {"phase", "length", "batch", "tokens/s", "min", "max", "bandwidth", "matrix"};
    out_table t;
    out_table_begin(&t, head, "lrrrrrrr");
    for (int i = 0; i < b->n_row; i++) {
        const result *r = &b->row[i];
        out_cell(&t, i, 0, "%s", r->phase);
        out_cell(&t, i, 1, "%lld", (long long)r->length);
        out_cell(&t, i, 2, "%lld", (long long)r->batch);
        out_cell(&t, i, 3, "%.1f", r->tok_s);
        out_cell(&t, i, 4, "%.1f", r->tok_s_min);
        out_cell(&t, i, 5, "%.1f", r->tok_s_max);
        out_cell(&t, i, 6, "%.1f %%", 100 * r->share_bandwidth);
        out_cell(&t, i, 7, "%.1f %%", 100 * r->share_matrix);
    }
    return out_table_end(&t, stdout) ? 0 : cli_fail(b->o, "out of memory");
}

static int room_for(const bench *b, int64_t length) {
    int64_t ctx = cli_int(b->o, OPT_CTX, INT64_MAX);
    return length + b->n_gen <= ctx ? 0
                                    : cli_fail(b->o, "--ctx %lld: %lld prompt and %lld new tokens do not fit",
                                               (long long)ctx, (long long)length, (long long)b->n_gen);
}

static int run_all(bench *b) {
    static const int64_t one_length[] = {512}, one_batch[] = {1};
    const cli_value *lv = &b->o->v[OPT_LENGTHS], *bv = &b->o->v[OPT_BATCHES];
    const int64_t *length = lv->n ? lv->ints : one_length, *batch = bv->n ? bv->ints : one_batch;
    size_t n_length = lv->n ? lv->n : 1, n_batch = bv->n ? bv->n : 1;
    double *seconds = (double *)calloc((size_t)b->n_gen + 1, sizeof *seconds),
           *speed = (double *)calloc((size_t)b->n_rep, sizeof *speed);
    b->row = (result *)calloc(2 * n_length * n_batch, sizeof *b->row);
    int rc = seconds && speed && b->row ? 0 : cli_fail(b->o, "out of memory");
    for (size_t i = 0; i < n_length && !rc; i++) rc = room_for(b, length[i]);
    for (size_t i = 0; i < n_length && !rc; i++)
        for (size_t k = 0; k < n_batch && !rc; k++)
            rc = term_interrupted() ? cli_fail(b->o, "interrupted") : bench_one(b, length[i], batch[k], seconds, speed);
    if (!rc || b->n_row) { /* what was measured before a failure is not lost */
        if (cli_has(b->o, OPT_JSON))
            report_json(b);
        else if (cli_has(b->o, OPT_CSV))
            report_csv(b);
        else if (report_table(b))
            rc = 1;
    }
    free(seconds);
    free(speed);
    free(b->row);
    return rc;
}

/* Only writes; a bench of the written checkpoint is another call. */
static int write_synthetic(const cli_opts *o, ffai_model *m) {
    ffai_error err;
    const char *dir = cli_str(o, OPT_WRITE_SYNTHETIC, "");
    char path[4096];
    bool made = mkdir(dir, 0777) == 0;
    if (!made && errno != EEXIST) return cli_fail(o, "--write-synthetic %s: %s", dir, strerror(errno));
    if ((size_t)snprintf(path, sizeof path, "%s/model.safetensors", dir) < sizeof path && access(path, F_OK) == 0)
        return cli_fail(o, "--write-synthetic %s: a model is there already", dir);
    if (!ffai_model_write_synthetic(m, dir, &err)) return 0;
    if (made) rmdir(dir); /* if it is empty */
    return cli_fail(o, "%s", err.msg);
}

/* The device that --device most likely means, whose limits are measured while its memory is free. */
static const char *chosen_device(const cli_opts *o, char name[16]) {
    ffai_device_info d;
    ffai_engine_opts eo = session_engine_opts(o);
    const char *dev = cli_str(o, OPT_DEVICE, "auto");
    if (!strcmp(dev, "cuda")) return "cuda:0";
    if (strcmp(dev, "auto")) return dev;
    bool gpu = !eo.cpu && ffai_device_at(1, &eo, &d, NULL) == 1;
    snprintf(name, 16, "%s", gpu ? d.name : "cpu");
    return name;
}

static int run_bench(const cli_opts *o) {
    char name[16];
    static const opt_id formats[] = {OPT_JSON, OPT_CSV, OPT_END};
    bench b = {.o = o, .n_gen = cli_int(o, OPT_GEN, 128), .n_rep = cli_int(o, OPT_REPEAT, 5)};
    int rc = cli_exclusive(o, formats);
    if (!rc && !cli_has(o, OPT_DEVICE_LIMITS)) rc = cli_require(o, OPT_MODEL);
    if (!rc && cli_has(o, OPT_MODEL)) rc = session_model(o, false, &b.m);
    if (!rc && cli_has(o, OPT_WRITE_SYNTHETIC)) {
        rc = b.m ? write_synthetic(o, b.m) : cli_require(o, OPT_MODEL);
        ffai_model_free(b.m);
        return rc;
    }
    if (!rc) rc = know_limits(&b, chosen_device(o, name));
    if (!rc && cli_has(o, OPT_DEVICE_LIMITS)) print_limits(o, &b.lim);
    if (!rc) term_catch_interrupt(true);
    if (!rc && b.m) rc = run_all(&b);
    ffai_model_free(b.m);
    return rc;
}

static const opt_id bench_options[] = {
    OPT_MODEL,   OPT_CTX,    OPT_SYNTHETIC,     OPT_LENGTHS,         OPT_GEN,
    OPT_BATCHES, OPT_REPEAT, OPT_DEVICE_LIMITS, OPT_WRITE_SYNTHETIC, CLI_MACHINE_OPTIONS,
    OPT_JSON,    OPT_CSV,    OPT_PROFILE,       CLI_REPORT_OPTIONS,  OPT_END};

const cli_command cmd_bench = {
    .name = "bench",
    .summary = "measure prefill and decode speed",
    .usage = "-m MODEL [-p LENGTHS] [-n N] [-b SIZES] [-r N] [--json | --csv]",
    .text =
        "For every prompt length and batch size it times the prompt (prefill) and N tokens after it (decode), several "
        "times, and prints the median, "
        "the slowest and the fastest in tokens per second over all sequences of the batch. Two shares say how close "
        "that is to the machine: of "
        "the memory bandwidth that a read stream reaches, and of the rate of matrix products (the CPU: int8 in fast, "
        "f32 "
        "in exact; a GPU: bf16, and f32 without TF32), both measured first. Decode counts the weights once a step and "
        "the "
        "keys and values of all sequences at their length; a model that fits into the processor's caches may show more "
        "than 100 % of the bandwidth. --profile adds a roofline: what every operation read and computed a call, the "
        "seconds that these limits would need for it, and which of the two binds. Ctrl-C ends the measurement and "
        "prints what there is.\n\n"
        "--synthetic measures a shape whose weights are not at hand: the folder needs config.json only, and the "
        "matrices "
        "are random numbers in the given format: affine{2,3,4,5,6,8}g{32,64,128}, mxfp4, mxfp8, nvfp4, fp8, f32, f16, "
        "bf16 or a GGUF type as q4_k or iq2_xs (mxfp4_b and nvfp4_b are GGUF's layouts of these). With "
        "--write-synthetic they are written as a checkpoint and nothing is measured; GGUF types have no safetensors "
        "type and cannot be written.",
    .examples = "bench -m models/gemma-3-270m -p 512,2048 -n 128 -b 1,8\nbench -m model.gguf --json > "
                "speed.json\nbench -m DIR --synthetic affine4g64 -p 512\nbench --device-limits",
    .options = bench_options,
    .run = run_bench,
};
