/* ffai devices: where models can run here. */
#include "cli/commands.h"
#include "cli/limits.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/term.h"

#include <string.h>

static bool is_cpu(const ffai_device_info *d) { return !strcmp(d->name, "cpu"); }

static void json_cores(out_json *j, const ffai_device_info *d) {
    out_json_int(j, "cores", d->n_core);
    out_json_int(j, "fast_cores", d->n_fast_core);
    out_json_int(j, "memory_nodes", d->n_node);
    if (d->cpu_limit > 0)
        out_json_num(j, "processor_limit", d->cpu_limit);
    else
        out_json_str(j, "processor_limit", NULL);
    out_json_int(j, "default_threads", d->n_default);
}

static void json_device(out_json *j, const ffai_device_info *d, const ffai_device_rates *l) {
    out_json_open(j, NULL, '{');
    out_json_str(j, "device", d->name);
    out_json_str(j, "model", d->model);
    out_json_str(j, is_cpu(d) ? "instructions" : "architecture", d->isa);
    out_json_str(j, "driver", *d->driver ? d->driver : NULL);
    out_json_int(j, is_cpu(d) ? "processors" : "multiprocessors", d->n_thread);
    if (is_cpu(d)) json_cores(j, d);
    out_json_int(j, "memory_bytes", d->mem_bytes);
    out_json_int(j, "memory_available_bytes", d->mem_free_bytes);
    if (!is_cpu(d)) {
        out_json_str(j, "cublaslt", *d->cublaslt ? d->cublaslt : NULL);
        out_json_str(j, "nccl", *d->nccl ? d->nccl : NULL);
    }
    if (l) device_limits_json(j, l);
    out_json_close(j, '}');
}

static void text_device(const ffai_device_info *d, const ffai_device_rates *l) {
    char all[16], avail[16], cores[96];
    printf("%s\n", d->name);
    printf("  model         %s\n", *d->model ? d->model : "unknown");
    printf("  %-14s%s\n", is_cpu(d) ? "instructions" : "architecture", d->isa);
    if (*d->driver) printf("  driver        %s\n", d->driver);
    if (is_cpu(d))
        printf("  processors    %s\n  threads       %d by default\n", device_cores(d, cores, sizeof cores),
               d->n_default);
    else
        printf("  units         %d\n", d->n_thread);
    if (!d->mem_bytes)
        puts("  memory        unknown");
    else if (!d->mem_free_bytes)
        printf("  memory        %s\n", out_bytes(all, (double)d->mem_bytes));
    else
        printf("  memory        %s, %s available\n", out_bytes(all, (double)d->mem_bytes),
               out_bytes(avail, (double)d->mem_free_bytes));
    if (!is_cpu(d)) {
        printf("  cuBLASLt      %s\n", *d->cublaslt ? d->cublaslt : "not found");
        printf("  NCCL          %s\n", *d->nccl ? d->nccl : "not found");
    }
    if (l) device_limits_text(stdout, l, "  ", 14);
}

static int run_devices(const cli_opts *o) {
    ffai_device_info d;
    ffai_error err;
    ffai_device_rates l;
    out_json j;
    ffai_engine_opts eo = session_engine_opts(o);
    bool json = cli_has(o, OPT_JSON), measure = cli_has(o, OPT_DEVICE_LIMITS);
    if (cli_has(o, OPT_THREADS) && !measure) return cli_usage(o, "--threads needs --device-limits");
    int more = ffai_device_at(0, &eo, &d, &err), rc = 0;
    if (more < 0) return cli_fail(o, "%s", err.msg);
    if (json) {
        out_json_begin(&j, stdout, true);
        out_json_open(&j, NULL, '[');
    }
    for (size_t i = 1; more > 0; i++) {
        out_plain(d.model);
        out_plain(d.driver);
        bool its = measure && !device_limits_measure(o, d.name, &l); /* the others are told all the same */
        if (measure && !its) rc = 1;
        if (json)
            json_device(&j, &d, its ? &l : NULL);
        else
            text_device(&d, its ? &l : NULL);
        more = ffai_device_at(i, &eo, &d, &err);
        if (i == 1 && more == 0) term_detail("no GPU: %s", err.msg);
    }
    if (json) out_json_close(&j, ']');
    return more < 0 ? cli_fail(o, "%s", err.msg) : rc;
}

static const opt_id devices_options[] = {OPT_DEVICE_LIMITS, OPT_THREADS, OPT_JSON, CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_devices = {
    .name = "devices",
    .summary = "list the devices that models run on",
    .usage = "[--device-limits [--threads N]] [--json]",
    .text = "For each device: its model, the instruction set that the kernels use, the processors that the program may "
            "use with their cores and the threads that models get by default, and memory, all of it and what is "
            "available now. FFAI_CPU lowers the instruction set: c, avx2, avxvnni, avx512, avx512vnni, avx512bf16 "
            "(only used when named), amx, amxint8 (only used when named); on arm c, neon, neondot, neoni8mm, neonbf16 "
            "(only used when named). "
            "GPUs need the CUDA module of this build "
            "(libffai_cuda.so, or what FFAI_CUDA_MODULE names) and NVIDIA's driver; --verbose tells why there is none. "
            "For a "
            "GPU also the versions of the libraries that are opened at run time: prompts need cuBLASLt; NCCL is for "
            "several "
            "GPUs, which nothing uses yet.\n\n"
            "--device-limits also measures what bench compares speeds with: bytes per second of a read stream, and "
            "operations per second of matrix products: int8 and f32 with all that the machine has, on a GPU bf16, and "
            "f32 without TF32. That takes about a second for each.",
    .examples = "devices\ndevices --device-limits --json",
    .options = devices_options,
    .run = run_devices,
};
