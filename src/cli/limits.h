/* Measured limits of the machine: what `bench` and `devices` print. */
#ifndef FFAI_CLI_LIMITS_H
#define FFAI_CLI_LIMITS_H

#include "cli/opts.h"
#include "cli/out.h"

typedef struct device_limits {
    double read, int8, f32; /* bytes, operations a second */
} device_limits;

/* With the threads of --threads. 0, or 1 after a message. */
int device_limits_measure(const cli_opts *o, device_limits *l);
/* As members of the open object. */
void device_limits_json(out_json *j, const device_limits *l);
/* One line each: `indent`, the name in a column of `width`, the value. */
void device_limits_text(const device_limits *l, const char *indent, int width);

#endif
