/* What the op files share: recording and shape checks. */
#ifndef FA_OPS_INTERNAL_H
#define FA_OPS_INTERNAL_H

#include "ops/ops.h"

/* The first failure wins; the message carries layer and op. */
void fa_cx_fail(fa_cx *cx, fa_op op, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A fresh f32 tensor [d0, d1] in the arena; empty after an error. */
fa_tensor fa_cx_tensor(fa_cx *cx, fa_op op, int64_t d0, int64_t d1);
/* The same for what a fused operation hands to the next one: of the backend's type for that. */
fa_tensor fa_cx_activation(fa_cx *cx, fa_op op, int64_t d0, int64_t d1);
/* Appends *rec (op, layer and work are filled here). */
void fa_cx_record(fa_cx *cx, fa_op op, fa_rec *rec);
static inline bool fa_cx_ok(const fa_cx *cx) { return cx->err.code == 0; }
/* x must be [any, dim]. */
bool fa_cx_check_cols(fa_cx *cx, fa_op op, fa_tensor x, int64_t dim, const char *what);
/* What adapters change on w; NULL: nothing. */
const fa_loras *fa_cx_loras(const fa_cx *cx, const fa_weight *w);
/* Rows of a record that adapters change: those of the batch, or its outputs (*out_rows); anything else is an error. */
bool fa_cx_lora_rows(fa_cx *cx, fa_op op, const fa_weight *w, int64_t rows, bool *out_rows);
/* What adapters make of y = w x. y may hold a sum that this product was added to, unless they have magnitudes. */
void fa_cx_lora(fa_cx *cx, fa_tensor y, fa_tensor x, const fa_linear *w);
/* y = x W^T + bias and what adapters add, into a tensor that is there; its temporaries are released. */
void fa_cx_linear(fa_cx *cx, fa_tensor y, fa_tensor x, const fa_linear *w);
/* The same for the rows of table w that were put into y, times scale. */
void fa_cx_lora_embed(fa_cx *cx, fa_tensor y, const fa_weight *w, float scale);
/* Bytes that reading weight w once moves. */
double fa_weight_traffic(const fa_weight *w);

#endif
