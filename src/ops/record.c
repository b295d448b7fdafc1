/* Recording: the sticky error, arena tensors, appending records, layers and taps. */
#include "ops/internal.h"
#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void fa_cx_fail(fa_cx *cx, fa_op op, const char *fmt, ...) {
    if (cx->err.code) return;
    char text[sizeof cx->err.msg - 48];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (cx->layer >= 0)
        fa_fail(&cx->err, FFAI_EINVAL, "layer %d: %s: %s", cx->layer, fa_op_name(op), text);
    else
        fa_fail(&cx->err, FFAI_EINVAL, "%s: %s", fa_op_name(op), text);
}

static fa_tensor new_tensor(fa_cx *cx, fa_op op, int64_t d0, int64_t d1, fa_dtype type) {
    fa_tensor t = {0};
    if (!fa_cx_ok(cx)) return t;
    if (d0 < 0 || d1 < 0 || (d1 && d0 > INT64_MAX / 4 / d1)) {
        fa_cx_fail(cx, op, "output [%lld, %lld] is too large", (long long)d0, (long long)d1);
        return t;
    }
    void *p = fa_arena_alloc(cx->arena, (size_t)(d0 * d1) * fa_dtype_size(type));
    if (!p) {
        fa_cx_fail(cx, op, "no memory for [%lld, %lld] activations", (long long)d0, (long long)d1);
        cx->err.code = FFAI_ENOMEM;
        return t;
    }
    return (fa_tensor){.data = p, .dim = {d0, d1, 1, 1}, .n_dim = 2, .dtype = (uint8_t)type};
}

fa_tensor fa_cx_tensor(fa_cx *cx, fa_op op, int64_t d0, int64_t d1) { return new_tensor(cx, op, d0, d1, FA_F32); }

fa_tensor fa_cx_activation(fa_cx *cx, fa_op op, int64_t d0, int64_t d1) {
    return new_tensor(cx, op, d0, d1, cx->composed ? FA_F32 : cx->be->act);
}

void fa_cx_record(fa_cx *cx, fa_op op, fa_rec *rec) {
    if (!fa_cx_ok(cx)) return;
    if (!cx->be->has_op[op]) {
        fa_cx_fail(cx, op, "the %s backend has no such operation", cx->be->name);
        cx->err.code = FFAI_ENOTSUP;
        return;
    }
    fa_program *p = cx->prog;
    if (p->n == p->cap) {
        int cap = p->cap ? 2 * p->cap : 256;
        fa_rec *grown = (fa_rec *)fa_realloc(p->rec, (size_t)cap, sizeof *grown);
        if (!grown) {
            fa_cx_fail(cx, op, "no memory for %d records", cap);
            cx->err.code = FFAI_ENOMEM;
            return;
        }
        p->rec = grown;
        p->cap = cap;
    }
    size_t work = 0, scratch = 0;
    rec->op = (uint8_t)op;
    rec->layer = (int16_t)cx->layer;
    rec->work = NULL;
    fa_error why = {0};
    if (cx->be->needs(cx->be, rec, &work, &scratch, &why)) {
        fa_cx_fail(cx, op, "%s", why.msg);
        cx->err.code = why.code;
        return;
    }
    if (scratch > p->scratch) p->scratch = scratch;
    if (work) {
        /* released right after: the next allocation may reuse it, because records run one after the other */
        size_t mark = fa_arena_mark(cx->arena);
        rec->work = fa_arena_alloc(cx->arena, work);
        fa_arena_reset(cx->arena, mark);
        if (!rec->work) {
            fa_cx_fail(cx, op, "no memory for %zu bytes of work space", work);
            cx->err.code = FFAI_ENOMEM;
            return;
        }
    }
    p->rec[p->n++] = *rec;
}

bool fa_cx_check_cols(fa_cx *cx, fa_op op, fa_tensor x, int64_t dim, const char *what) {
    if (!fa_cx_ok(cx)) return false;
    if (x.n_dim == 2 && x.dim[1] == dim) return true;
    fa_cx_fail(cx, op, "%s has %lld columns, x is [%lld, %lld]", what, (long long)dim, (long long)x.dim[0],
               (long long)x.dim[1]);
    return false;
}

double fa_weight_traffic(const fa_weight *w) {
    return (double)w->rows *
           ((double)w->row_bytes + (double)w->scale_row_bytes * (w->biases ? 2 : 1) * (w->scales ? 1 : 0));
}

size_t fa_layer_begin(fa_cx *cx, int layer) {
    cx->layer = layer;
    return fa_arena_mark(cx->arena);
}

void fa_layer_end(fa_cx *cx, size_t mark) {
    cx->layer = -1;
    fa_arena_reset(cx->arena, mark);
}

void fa_tap(fa_cx *cx, const char *name, fa_tensor t) {
    if (!cx->taps || !fa_cx_ok(cx)) return;
    fa_rec r = {.in = {t}};
    r.p.tap.name = name;
    fa_cx_record(cx, FA_OP_TAP, &r);
}
