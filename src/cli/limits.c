/* Measured limits of a device, as numbers for people and as JSON. */
#include "cli/limits.h"
#include "cli/session.h"

const char *device_cores(const ffai_device_info *d, char *text, size_t cap) {
    int n = snprintf(text, cap, "%d on %d core%s", d->n_thread, d->n_core, d->n_core == 1 ? "" : "s");
    if (d->n_fast_core < d->n_core && n < (int)cap)
        n += snprintf(text + n, cap - (size_t)n, ", %d of them fast", d->n_fast_core);
    if (d->n_node > 1 && n < (int)cap) n += snprintf(text + n, cap - (size_t)n, ", %d memory nodes", d->n_node);
    if (d->cpu_limit > 0 && n < (int)cap) snprintf(text + n, cap - (size_t)n, ", time of %.4g by cgroup", d->cpu_limit);
    return text;
}

int device_limits_measure(const cli_opts *o, const char *device, ffai_device_rates *l) {
    ffai_error err;
    ffai_engine_opts eo = session_engine_opts(o);
    eo.device = device;
    return ffai_device_limits(&eo, l, &err) ? cli_fail(o, "%s", err.msg) : 0;
}

/* Which matrix rates there are depends on the device. */
void device_limits_json(out_json *j, const ffai_device_rates *l) {
    out_json_num(j, "read_bytes_s", l->read_bytes_s);
    if (l->int8_ops_s > 0) out_json_num(j, "int8_ops_s", l->int8_ops_s);
    if (l->bf16_ops_s > 0) out_json_num(j, "bf16_ops_s", l->bf16_ops_s);
    out_json_num(j, "f32_ops_s", l->f32_ops_s);
}

void device_limits_csv(const ffai_device_rates *l) {
    puts("read_bytes_s,int8_ops_s,bf16_ops_s,f32_ops_s");
    printf("%.6g,%.6g,%.6g,%.6g\n", l->read_bytes_s, l->int8_ops_s, l->bf16_ops_s, l->f32_ops_s);
}

void device_limits_text(FILE *to, const ffai_device_rates *l, const char *indent, int width) {
    fprintf(to, "%s%-*s%.1f GB/s\n", indent, width, "read", l->read_bytes_s * 1e-9);
    if (l->int8_ops_s > 0) fprintf(to, "%s%-*s%.1f Gop/s\n", indent, width, "int8", l->int8_ops_s * 1e-9);
    if (l->bf16_ops_s > 0) fprintf(to, "%s%-*s%.1f Gop/s\n", indent, width, "bf16", l->bf16_ops_s * 1e-9);
    fprintf(to, "%s%-*s%.1f Gop/s\n", indent, width, "f32", l->f32_ops_s * 1e-9);
}
