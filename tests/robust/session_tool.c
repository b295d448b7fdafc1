/* For test_faults.sh: session_tool MODEL FILE [load] makes a few tokens, saves the session to FILE and loads it again;
 * with "load" it only loads FILE. Status 1 and one line on stderr when something fails. */
#include "ffai.h"

#include <stdio.h>

static int failed(const ffai_error *err) {
    fprintf(stderr, "%s\n", err->msg);
    return 1;
}

static int save(ffai_engine *e, const char *path, ffai_error *err) {
    static const int32_t ids[] = {1, 2, 3};
    ffai_request *r;
    ffai_request_opts o = {.ids = ids, .n_ids = 3, .max_new = 3, .ignore_eos = true};
    int rc = ffai_submit(e, &o, &r, err), more = 1;
    while (!rc && more > 0)
        if ((more = ffai_engine_step(e, err)) < 0) rc = more;
    if (!rc) rc = ffai_session_save(r, path, err);
    ffai_request_free(r);
    return rc;
}

int main(int argc, char **argv) {
    ffai_error err = {0};
    ffai_model *m = NULL;
    ffai_engine *e = NULL;
    ffai_engine_opts eo = {.n_thread = 2, .n_ctx = 64};
    int32_t *ids = NULL;
    size_t n = 0;
    if (argc < 3) return 2;
    int rc = ffai_model_open(&m, argv[1], NULL, &err);
    if (!rc) rc = ffai_engine_create(&e, m, &eo, &err);
    if (!rc && argc == 3) rc = save(e, argv[2], &err);
    if (!rc) rc = ffai_session_load(e, argv[2], &ids, &n, &err);
    if (!rc) printf("%zu tokens\n", n);
    ffai_free(ids);
    ffai_engine_free(e);
    ffai_model_free(m);
    return rc ? failed(&err) : 0;
}
