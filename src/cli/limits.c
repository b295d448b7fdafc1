/* Measured limits of the machine, as numbers for people and as JSON. */
#include "cli/limits.h"

#include <ffai.h>

int device_limits_measure(const cli_opts *o, device_limits *l) {
    ffai_error err;
    if (ffai_device_limits((int)cli_int(o, OPT_THREADS, 0), &l->read, &l->int8, &l->f32, &err))
        return cli_fail(o, "%s", err.msg);
    return 0;
}

void device_limits_json(out_json *j, const device_limits *l) {
    out_json_num(j, "read_bytes_s", l->read);
    out_json_num(j, "int8_ops_s", l->int8);
    out_json_num(j, "f32_ops_s", l->f32);
}

void device_limits_text(const device_limits *l, const char *indent, int width) {
    printf("%s%-*s%.1f GB/s\n", indent, width, "read", l->read * 1e-9);
    printf("%s%-*s%.1f Gop/s\n", indent, width, "int8", l->int8 * 1e-9);
    printf("%s%-*s%.1f Gop/s\n", indent, width, "f32", l->f32 * 1e-9);
}
