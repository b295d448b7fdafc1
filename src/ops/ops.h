/* The op manual: everything that a family's forward may call. An op checks shapes, reserves its output in the step
 * arena and appends a record; it computes nothing itself. Errors are sticky: after the first failure every op returns
 * an empty tensor and records nothing, so forward needs no checks; the engine reads cx->err once per recording.
 *
 * Shapes: n_tok rows of the step (batch->n_tok), f32 activations. */
#ifndef FA_OPS_OPS_H
#define FA_OPS_OPS_H

#include "backend/backend.h"

/* The matrices that adapters change, by fa_weight.id. */
typedef struct fa_adapted {
    const fa_loras *linear, *embed; /* [n] */
    uint32_t n;
} fa_adapted;

typedef struct fa_cx {
    fa_backend *be;
    fa_arena *arena;
    fa_program *prog;
    const fa_batch *batch;
    fa_error err;              /* sticky: code 0 while all is well */
    int layer;                 /* -1 outside layers */
    bool taps;                 /* record TAP records, and fused ops as primitives where inner taps exist */
    bool inputs;               /* taps of what goes into linear layers, by the names of their weights */
    bool composed;             /* record every fused op as its primitives */
    const fa_adapted *adapted; /* NULL: no sequence of the batch uses an adapter */
} fa_cx;

/* ---- frame ---- */
/* Marks the arena; everything allocated inside the layer is released at its end. */
size_t fa_layer_begin(fa_cx *cx, int layer);
void fa_layer_end(fa_cx *cx, size_t mark);
/* Makes t visible under a name to inspect and to tests. Recorded only when taps are on. */
void fa_tap(fa_cx *cx, const char *name, fa_tensor t);

/* ---- primitives ---- */
/* [n_tok, cols] rows of table w [vocab, cols] for batch->tok, times scale; rows that batch->embd_row names are copied
 * from batch->embd as they are. */
fa_tensor fa_embed(fa_cx *cx, const fa_weight *w, float scale);
/* cos and sin of every row's position: [n_tok, 2 * n_pair], a row's cosines before its sines; empty when r->n_pair is
 * 0. Angles are formed as float(pos) * inv_freq in f32. */
fa_tensor fa_rope_table(fa_cx *cx, const fa_rope *r);
/* Normalisation of each row of x [n, dim]: RMSNorm or LayerNorm, as w says. */
fa_tensor fa_norm_op(fa_cx *cx, fa_tensor x, const fa_norm *w);
/* x [n, in] times w [out, in] transposed, plus bias: [n, out]. */
fa_tensor fa_linear_op(fa_cx *cx, fa_tensor x, const fa_linear *w);
/* Columns order[0..n) of x (fa_linear.order). */
fa_tensor fa_pick_cols(fa_cx *cx, fa_tensor x, const float *order, int64_t n);
/* In place: normalises each head of x [n, heads * dim]. */
void fa_head_norm(fa_cx *cx, fa_tensor x, const fa_norm *w);
/* In place: rotates the leading 2 * n_pair dims of each head of x [n_tok, heads * head_dim] by table (fa_rope_table).
 */
void fa_rope_apply(fa_cx *cx, fa_tensor x, fa_tensor table, int64_t head_dim, bool interleaved);
/* Stores the new rows k, v [n_tok, n_kv * head_dim] in the cache. */
void fa_append(fa_cx *cx, fa_tensor k, fa_tensor v, const fa_kv *kv);
/* act(gate) * up, elementwise; up empty: act(gate). */
fa_tensor fa_glu(fa_cx *cx, fa_tensor gate, fa_tensor up, fa_act_fn act);
/* y += scale * x */
void fa_add(fa_cx *cx, fa_tensor y, fa_tensor x, float scale);
/* In place: x *= scale; nothing when scale is 1. */
void fa_scale(fa_cx *cx, fa_tensor x, float scale);
/* In place: x = min(max(x, -limit), limit); nothing when limit is 0. */
void fa_clamp(fa_cx *cx, fa_tensor x, float limit);
/* A copy of columns [from, from + n) of x. */
fa_tensor fa_cols(fa_cx *cx, fa_tensor x, int64_t from, int64_t n);
/* In place: row i of x times act(gate[i, 0]). */
void fa_row_gate(fa_cx *cx, fa_tensor x, fa_tensor gate, fa_act_fn act);
/* Rows batch->out_row of x [n_tok, dim]: [n_out, dim]. */
fa_tensor fa_out_rows(fa_cx *cx, fa_tensor x);
/* In place: x = cap * tanh(x / cap); nothing when cap is 0. */
void fa_softcap(fa_cx *cx, fa_tensor x, float cap);

/* ---- mixture of experts ---- */
/* Choice of experts from router logits [n, n_expert]: see fa_route. [n, 2 * n_used] */
fa_tensor fa_route_op(fa_cx *cx, fa_tensor logits, const fa_route *route);
/* y[i] = sum over the experts e chosen for row i of weight * e(x[i]): [n, dim]. */
fa_tensor fa_moe_op(fa_cx *cx, fa_tensor x, fa_tensor choice, const fa_moe *moe);
/* h += scale * that */
void fa_moe_add(fa_cx *cx, fa_tensor h, fa_tensor x, fa_tensor choice, const fa_moe *moe, float scale);

/* ---- recurrent layers: what each computes is told in backend/program.h; st: the layer's state ---- */
/* Columns of t from `col` on; t has a row for each of the step's. */
fa_view fa_from(fa_cx *cx, fa_tensor t, int64_t col);
/* [n_tok, w->n] */
fa_tensor fa_conv_op(fa_cx *cx, fa_view x, const fa_conv *w, const fa_state *st);
/* x, dt [n_tok, dim], b, c [n_tok, n_state]: [n_tok, dim] */
fa_tensor fa_ssm1_op(fa_cx *cx, fa_view x, fa_view dt, fa_view b, fa_view c, const fa_ssm1 *w, const fa_state *st);
/* x [n_tok, n_head * head_dim], dt [n_tok, n_head], b, c [n_tok, n_group * n_state]: [n_tok, n_head * head_dim] */
fa_tensor fa_ssd_op(fa_cx *cx, fa_view x, fa_view dt, fa_view b, fa_view c, const fa_ssd *w, const fa_state *st);
/* q, k [n_tok, n_k_head * k_dim], v [n_tok, n_v_head * v_dim], beta, a [n_tok, n_v_head]: [n_tok, n_v_head * v_dim] */
fa_tensor fa_delta_op(fa_cx *cx, fa_view q, fa_view k, fa_view v, fa_view beta, fa_view a, const fa_delta *w,
                      const fa_state *st);
/* In place on y, with z as wide. */
void fa_gate_norm(fa_cx *cx, fa_tensor y, fa_view z, const fa_gate *w);
/* In place: column j of x times s[j]; nothing when s is NULL. */
void fa_scale_cols(fa_cx *cx, fa_tensor x, const float *s);

/* ---- attention ---- */
typedef struct fa_attn {
    int n_head, n_kv_head, head_dim;
    float scale, softcap; /* scores are softcap * tanh(scale * q.k / softcap) when softcap > 0 */
    const float *sink;    /* [n_head] or NULL */
} fa_attn;

/* Causal (batch->kv_lo, kv_hi) attention of q [n_tok, n_head * head_dim] over the cache, new rows included: [n_tok,
 * n_head * head_dim]. */
fa_tensor fa_attend(fa_cx *cx, fa_tensor q, const fa_kv *kv, const fa_attn *attn);

/* ---- fused ops; the composition that defines each one is in ops/fused.c and used when cx->composed is set ---- */
typedef struct fa_qkv {
    fa_linear q, k, v; /* biases inside. k and v without rows: the layer reads another layer's cache and writes none */
    const fa_norm *q_norm, *k_norm, *v_norm; /* per head, or as wide as the projection; NULL: none */
    float clip;                              /* > 0: projections are clamped to +-clip first */
} fa_qkv;

/* n = norm(h), or h where norm is NULL; q, k, v = projections of n, norms, rotation; k and v go to the cache; returns
 * q. table empty: no rotation. */
fa_tensor fa_norm_qkv(fa_cx *cx, fa_tensor h, const fa_norm *norm, const fa_qkv *w, fa_tensor table, bool interleaved,
                      const fa_kv *kv);
/* h += scale * post(w x); post NULL: no normalisation */
void fa_linear_add(fa_cx *cx, fa_tensor h, fa_tensor x, const fa_linear *w, const fa_norm *post, float scale);
/* n = norm(h), or h where norm is NULL; act(gate n) * (up n), or act(gate n) where up has no rows */
fa_tensor fa_norm_mlp_up(fa_cx *cx, fa_tensor h, const fa_norm *norm, const fa_linear *gate, const fa_linear *up,
                         fa_act_fn act);

#endif
