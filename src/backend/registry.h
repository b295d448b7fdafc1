/* Devices by name, and the module that brings GPUs: libffai_cuda.so is opened when one is asked for, so that the
 * library itself needs no driver and no CUDA. */
#ifndef FA_BACKEND_REGISTRY_H
#define FA_BACKEND_REGISTRY_H

#include "backend/device.h"

typedef enum fa_device_kind { FA_ON_AUTO, FA_ON_CPU, FA_ON_CUDA } fa_device_kind;

/* What a device name means: "auto" (or NULL), "cpu", "cuda" (the first GPU), "cuda:N". */
typedef struct fa_device_name {
    fa_device_kind kind;
    int index; /* of a GPU */
} fa_device_name;

int fa_device_parse(fa_device_name *out, const char *text, fa_error *err);

/* The CUDA module. path NULL: beside the library or the program that holds it, in the lib folders next to that one,
 * else where the system's loader looks. It stays loaded until the process ends: the CUDA runtime inside leaves handlers
 * and threads of the driver behind, which must not run into unmapped code. No heap memory of the library is used. */
int fa_module_open(const fa_module **out, const char *path, fa_error *err);

#endif
