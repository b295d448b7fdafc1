/* What the engine tests do with any engine. */
#ifndef TESTS_ENGINE_RUN_H
#define TESTS_ENGINE_RUN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ffai.h"

/* Steps until every request has ended. */
static inline void run_out(ffai_engine *e) {
    ffai_error err = {0};
    int rc;
    while ((rc = ffai_engine_step(e, &err)) > 0) {
    }
    if (rc < 0) fail_msg("%s", err.msg);
}

#endif
