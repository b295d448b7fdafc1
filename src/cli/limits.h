/* Measured limits of a device: what `bench` and `devices` print. */
#ifndef FFAI_CLI_LIMITS_H
#define FFAI_CLI_LIMITS_H

#include "cli/opts.h"
#include "cli/out.h"

#include <ffai.h>

/* Of a device by its name, with the threads of --threads. 0, or 1 after a message. */
int device_limits_measure(const cli_opts *o, const char *device, ffai_device_rates *l);
/* "16 on 8 cores, ..." into text; returns it. */
const char *device_cores(const ffai_device_info *d, char *text, size_t cap);
/* As members of the open object. */
void device_limits_json(out_json *j, const ffai_device_rates *l);
/* One line each: `indent`, the name in a column of `width`, the value. */
void device_limits_text(FILE *to, const ffai_device_rates *l, const char *indent, int width);
/* A header and a row on stdout; 0 for a rate that this kind of device has not. */
void device_limits_csv(const ffai_device_rates *l);

#endif
