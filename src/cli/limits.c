/* Measured limits of a device, as numbers for people and as JSON. */
#include "cli/limits.h"
#include "cli/session.h"

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

void device_limits_text(const ffai_device_rates *l, const char *indent, int width) {
    printf("%s%-*s%.1f GB/s\n", indent, width, "read", l->read_bytes_s * 1e-9);
    if (l->int8_ops_s > 0) printf("%s%-*s%.1f Gop/s\n", indent, width, "int8", l->int8_ops_s * 1e-9);
    if (l->bf16_ops_s > 0) printf("%s%-*s%.1f Gop/s\n", indent, width, "bf16", l->bf16_ops_s * 1e-9);
    printf("%s%-*s%.1f Gop/s\n", indent, width, "f32", l->f32_ops_s * 1e-9);
}
