/* Sessions: the tokens and the cache of a sequence in a file. */
#include "engine/engine.h"

int ffai_session_save(ffai_request *r, const char *path, ffai_error *err) {
    (void)r;
    return fa_fail(err, FFAI_ENOTSUP, "%s: sessions are not supported yet", path);
}
int ffai_session_load(ffai_engine *e, const char *path, int32_t **ids, size_t *n, ffai_error *err) {
    *ids = NULL;
    *n = 0;
    (void)e;
    return fa_fail(err, FFAI_ENOTSUP, "%s: sessions are not supported yet", path);
}
