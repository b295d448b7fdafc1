/* ffai_convert: plan, run, text, and the folder that holds them. */
#include "engine/convert.h"
#include "base/alloc.h"

#include <string.h>

double cv_bits_per_weight(const cv_plan *p) {
    double bits = 0, n = 0;
    for (size_t i = 0; i < p->n; i++) {
        const cv_item *it = &p->item[i];
        if (!it->part) continue;
        for (int k = 0; k < it->n_out; k++) bits += 8.0 * (double)fa_st_out_bytes(&it->out[k]);
        n += (double)it->n_matrix * (double)it->rows * (double)it->cols;
    }
    return n > 0 ? bits / n : 0;
}

static void describe(const cv_plan *p, ffai_convert_info *info) {
    *info = (ffai_convert_info){.bytes = p->bytes, .n_file = p->n_shard, .n_requantized = p->n_requantized};
    info->bits_per_weight = cv_bits_per_weight(p);
    for (size_t i = 0; i < p->n; i++) {
        const cv_item *it = &p->item[i];
        info->n_tensor += it->n_out;
        if (it->part) info->n_weight += it->n_matrix * it->rows * it->cols;
    }
}

int ffai_convert(const char *path, const char *out, const ffai_convert_opts *opts, ffai_convert_info *info,
                 ffai_error *err) {
    static const ffai_convert_opts none;
    const ffai_convert_opts *o = opts ? opts : &none;
    cv_plan p = {0};
    fa_out_dir d = {0};
    if (info) *info = (ffai_convert_info){0};
    if (!path || !out) return fa_fail(err, FFAI_EINVAL, "ffai_convert: a path is NULL");
    int rc = fa_model_open_unbound(&p.m, path, err);
    if (!rc) rc = cv_plan_make(&p, path, o, err);
    if (!rc) rc = fa_out_dir_open(&d, out, err);
    if (!rc) rc = cv_write_text(&p, &d, err);
    if (!rc) rc = cv_run(&p, &d, o, err);
    if (!rc) rc = fa_out_dir_commit(&d, err);
    if (!rc && info) describe(&p, info);
    fa_out_dir_close(&d);
    cv_plan_free(&p);
    ffai_model_free(p.m);
    return rc;
}
