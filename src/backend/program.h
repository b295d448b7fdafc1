/* The step program: what a family's forward records and a backend runs. A record names an operation, its tensors
 * (addresses in the step arena), its weights and parameters. Nothing in a record depends on data that a step computes,
 * so a program recorded once for a batch shape is replayed with new batch integers. */
#ifndef FA_BACKEND_PROGRAM_H
#define FA_BACKEND_PROGRAM_H

#include "tensor/kvq.h"
#include "tensor/qfmt.h"
#include "tensor/tensor.h"

enum {
    FA_PAGE = 64, /* tokens per KV page */
    FA_MAX_GROUP = 4 /* KV page groups of one model */,
    FA_ADAPTERS = 64 /* that an engine can have loaded at a time */,
    FA_SCAN = 64 /* most rows that a scan takes at a time: fa_batch.cut */
};

/* A vector normalisation: out = x * rsqrt(mean(x^2) + eps) * (w + offset) (RMSNorm), or with `center`
 * out = (x - mean(x)) * rsqrt(var(x) + eps) * (w + offset) + b (LayerNorm). */
typedef struct fa_norm {
    const float *w; /* [dim], NULL: no weight */
    int64_t dim;
    float eps, offset;
    bool center;
    const float *b; /* [dim] or NULL; with center only */
} fa_norm;

/* y = x W^T + bias */
typedef struct fa_linear {
    fa_weight w;        /* [out, in] */
    const float *bias;  /* [out] or NULL */
    const float *order; /* [in] column j of w is for column order[j] of x (whole numbers); NULL: for column j */
} fa_linear;

/* Rotary position embedding: angle of pair i at position p is p * inv_freq[i]. */
typedef struct fa_rope {
    int64_t n_pair;             /* rotated pairs: 2 * n_pair leading dims of each head; 0 = no rotation */
    int64_t dim;                /* of frequencies: theta^(-2 i / dim); 2 * n_pair, or one less (dynamic only) */
    const float *inv_freq;      /* [n_pair] */
    const float *inv_freq_long; /* longrope: used when the sequence is longer than original_ctx; NULL otherwise */
    float mscale;               /* multiplies cos and sin (yarn, longrope); 1 otherwise */
    bool interleaved;           /* pairs (2i, 2i + 1) instead of (i, i + n_pair) */
    bool dynamic;               /* NTK: theta grows with the sequence beyond original_ctx */
    float theta, factor;        /* dynamic only */
    int64_t original_ctx;
    float growth; /* cos and sin are multiplied by 1 + growth * log(1 + floor(position / growth_ctx)) */
    int64_t growth_ctx;
} fa_rope;

typedef enum fa_act_fn {
    FA_ACT_SILU,
    FA_ACT_GELU_TANH,
    FA_ACT_GELU_ERF,
    FA_ACT_RELU,
    /* rarer ones run without kernels of their own */
    FA_ACT_GELU_QUICK /* x * sigmoid(1.702 x) */,
    FA_ACT_RELU2 /* relu(x)^2 */,
    FA_ACT_RELU6,
    FA_ACT_LEAKY_RELU /* slope 0.01 */,
    FA_ACT_SIGMOID,
    FA_ACT_TANH,
    FA_ACT_MISH,
    FA_ACT_LINEAR
} fa_act_fn;

/* A stack of experts' matrices of one format and shape, [rows, cols] each. On a device they lie at equal distances. */
typedef struct fa_experts {
    int64_t n;         /* 0: there is no such matrix */
    fa_weight *w;      /* [n] */
    const float *bias; /* [n, rows] or NULL */
} fa_experts;

typedef enum fa_score {
    FA_SCORE_SOFTMAX,     /* softmax over all experts */
    FA_SCORE_SIGMOID,     /* of each logit */
    FA_SCORE_TOP_SOFTMAX, /* the choice by logits, softmax over the chosen ones */
} fa_score;

/* How rows choose experts: s = score(logits); the n_used largest of s + bias, among the n_group_used groups of experts
 * with the largest sums of their two best s + bias (experts of other groups come after all others); weights s of those,
 * divided by (their sum + norm_eps) when `normalise`, times scale, times expert_scale of each. Equal scores: the lower
 * expert; NaN comes last. The experts of a row are different ones. */
typedef struct fa_route {
    int n_expert, n_used, n_group, n_group_used; /* n_group 1: no groups */
    fa_score score;
    bool normalise;
    float norm_eps, scale;
    const float *bias;         /* [n_expert] or NULL: for the choice only */
    const float *expert_scale; /* [n_expert] or NULL */
} fa_route;

/* The experts of a layer: down(act(gate x) * (up x)), or down(act(up x)) without gates. limit > 0 (GPT-OSS): gate is at
 * most limit, up between -limit and limit, and the product act(gate) * (up + 1), act being GELU_QUICK. */
typedef struct fa_moe {
    fa_experts gate, up, down; /* [ff, dim], [ff, dim], [dim, ff] */
    fa_act_fn act;
    float limit;
} fa_moe;

/* What one adapter changes on one matrix: y += s * (b (a x) + bias), s = scale times the sequence's scale for the
 * adapter (fa_batch.adapt). Of an embedding: row t of the table += s * b a_t. Formats F32, F16, BF16.
 *
 * With magnitudes (DoRA: Liu et al. 2024) row r of the changed matrix W + s b a gets a length of its own: then what y
 * is so far, without the bias that the layer itself has, is multiplied by m[r] / |(W + s b a)[r]|. The length for any s
 * is sqrt(c + (p s + q)^2), of which c, p and q are known. Of an embedding, lengths are those of columns, or of tokens'
 * rows. */
typedef struct fa_lora {
    fa_weight a;       /* [rank, in]; of an embedding [vocab, rank] */
    fa_weight b;       /* [out, rank] */
    const float *bias; /* [out] or NULL */
    const float *mag;  /* [4, n_mag]: m, c, p, q; NULL: no magnitudes */
    int64_t n_mag;
    bool by_token; /* of an embedding: its n_mag are rows of the table, not columns */
    /* Of a stack of experts: a [k rank, in] and b [k out, rank] are k matrices, of which expert e has the expert[e]-th,
     * or none: -1. No bias, no magnitudes. */
    const int32_t *expert;
    float scale;
    int adapter;    /* its column of fa_batch.adapt */
    int64_t u_from; /* where its a x stands in the a x of all: columns [u_from, u_from + rank) */
} fa_lora;

/* What all loaded adapters change on one matrix. */
typedef struct fa_loras {
    int n;                   /* 0: nothing */
    bool dora;               /* some have magnitudes */
    int64_t rank, max_rank;  /* their sum; the largest */
    const fa_lora *item;     /* [n] in host memory; addresses in it are the backend's */
    const fa_lora *dev_item; /* the same in a device's memory; NULL on the CPU */
} fa_loras;

/* One layer's part of the paged KV cache. Page p of a sequence in page group g is physical page batch->page[g][seq *
 * stride + p]; its keys for head j are at k + page * page_bytes + j * head_bytes, [FA_PAGE, head_dim] of dtype (I8:
 * tensor/kvq.h). */
typedef struct fa_kv {
    uint8_t *k, *v;
    size_t page_bytes, head_bytes;
    int64_t n_head, head_dim;
    int64_t n_page; /* physical pages */
    int group;
    fa_dtype dtype;
} fa_kv;

/* One layer's part of the recurrent states. A state is what the rows of a sequence up to some position have made of it;
 * those of one sequence and position lie together for all layers, `stride` floats from one to the next. Layouts are
 * those of the operations: sessions hold them as they are. */
typedef struct fa_state {
    float *conv; /* of state 0: [kernel - 1, channels], the inputs before the next row, oldest first; zeros before the
                    sequence began */
    float *scan; /* of state 0 */
    int64_t stride;
} fa_state;

/* Columns of a tensor with a row for each of the step's: row i is at + i * stride. */
typedef struct fa_view {
    const float *at;
    int64_t stride, n_col;
} fa_view;

/* A causal convolution of each channel by itself: y[i, c] = act(bias[c] + sum over j of w[c, j] x[i - kernel + 1 + j,
 * c])
 */
typedef struct fa_conv {
    int64_t n; /* channels */
    int kernel;
    const float *w;    /* [n, kernel] */
    const float *bias; /* [n] or NULL */
    fa_act_fn act;     /* LINEAR and SILU; others are a record behind (fa_conv_op) */
    int64_t state_at;  /* where its state begins in fa_state.conv: layers with several have one behind the other */
} fa_conv;

/* Selective scan of Mamba 1 (Gu, Dao 2023), per channel d with n_state values h, from delta = softplus(dt):
 *     h[n] = exp(delta a[n]) h[n] + delta B[n] x        y = sum over n of C[n] h[n], + d x
 * State: [n_state, dim]. */
typedef struct fa_ssm1 {
    int64_t dim, n_state;
    const float *a; /* [n_state, dim], negative */
    const float *d; /* [dim] */
} fa_ssm1;

/* Scan of Mamba 2 (Dao, Gu 2024), per head with head_dim x n_state values h; B and C [n_group, n_state] are shared by
 * n_head / n_group heads each; delta = clamp(softplus(dt + dt_bias), dt_min, dt_max):
 *     h[n, p] = exp(delta a) h[n, p] + delta B[n] x[p]        y[p] = sum over n of C[n] h[n, p], + d x[p]
 * State: [n_head, n_state, head_dim]. */
typedef struct fa_ssd {
    int n_head, head_dim, n_state, n_group;
    const float *a;       /* [n_head], negative */
    const float *d;       /* [n_head] */
    const float *dt_bias; /* [n_head] */
    float dt_min, dt_max;
} fa_ssd;

/* Gated delta rule (Yang, Kautz, Hatamizadeh 2024), per value head, of which n_v_head / n_k_head share a key head,
 * those that follow each other, or `tiled` those that are n_k_head apart (value head j has key head j % n_k_head); q
 * and k have length 1 (x * rsqrt(sum of x^2 + eps)), q then times k_dim^-0.5; b = beta_scale * sigmoid(beta), g =
 * exp(decay * softplus(a + dt_bias)): S[k, v] *= g;   u[v] = b (v[v] - sum over k of S[k, v] k[k]);   S[k, v] += k[k]
 * u[v];   y[v] = sum over k of S[k, v] q[k] State: [n_v_head, k_dim, v_dim]. */
typedef struct fa_delta {
    int n_k_head, n_v_head, k_dim, v_dim;
    const float *decay;   /* [n_v_head], negative */
    const float *dt_bias; /* [n_v_head] */
    float beta_scale, eps;
    bool tiled;
} fa_delta;

/* A gate and a norm of groups of columns: y = norm(y * act(z)), or with norm_first norm(y) * act(z), where norm divides
 * each group by its root mean square (eps inside) and multiplies by w. group 0: y * act(z) alone. */
typedef struct fa_gate {
    int64_t group;  /* columns */
    const float *w; /* one for each column, or `shared` by all groups: [group] */
    bool shared, norm_first;
    float eps;
    fa_act_fn act;
} fa_gate;

/* The ragged batch of one step: sequences one after the other, each with its new rows in order. Integers only; buffers
 * have fixed addresses for the life of the engine, so that programs can point to them. */
typedef struct fa_batch {
    /* host fields: what a program's shape depends on */
    int n_tok, n_seq, n_out;
    int n_dec;   /* leading sequences with one row each */
    int max_q;   /* most rows of one sequence */
    int n_tile;  /* entries of the tile table */
    int n_axes;  /* position axes: 1 (3 for multimodal RoPE) */
    int n_group; /* KV page groups */
    int n_adapt; /* columns of adapt */
    int n_cut;   /* entries of cut; 0: the model has no recurrent layers */
    /* One block holds all arrays below, at addresses fixed for the life of the engine, of which [0, used) is live. Page
     * tables stand last. A device is sent the live part of every array before a step. */
    uint8_t *block;
    size_t block_bytes, used;
    int32_t *tok;       /* [n_tok]; -1 - slot: the token that the device picked last for that slot */
    int32_t *pos;       /* [n_axes, n_tok] */
    int32_t *row_start; /* [n_seq + 1] */
    int32_t *row_seq;   /* [n_tok] the sequence of each row */
    int32_t *slot;      /* [n_seq] */
    int32_t *len;       /* [n_seq] tokens in the cache after this step */
    int32_t *rope_len;  /* [n_seq] length that picks length-dependent frequencies: the whole sequence's while it is fed
                           in pieces */
    int32_t *place;     /* [n_tok] position in the cache that a row's key and value go to; -1: nowhere */
    int32_t *kv_lo[FA_MAX_GROUP]; /* [n_tok] first visible position, per page group (windows) */
    int32_t *kv_hi;               /* [n_tok] one past the last visible position */
    int32_t *page[FA_MAX_GROUP];  /* [n_seq] rows, page_stride apart, of physical pages, -1 where none */
    int32_t page_stride;          /* the groups of a sequence stand side by side in a row */
    int32_t *out_row;             /* [n_out] rows whose logits are wanted */
    int32_t *tile_seq, *tile_row; /* [n_tile] query tiles of attention: sequence and first row within the batch */
    float *adapt;                 /* [n_seq, n_adapt] each sequence's scales of adapters; 0: not used */
    /* recurrent layers */
    int32_t *state_in;  /* [n_seq] the state that a sequence goes on from; -1: its beginning, zeros */
    int32_t *state_out; /* [n_seq] where its new state goes; may be the same */
    int32_t *keep;      /* [n_tok] where a copy of the state after this row goes; -1: nowhere */
    int32_t *cut; /* [n_cut + 1] first rows of the pieces that scans take at a time, then n_tok: at most FA_SCAN rows
                     of one sequence, none behind a row with keep >= 0 */
    int32_t *seq_cut; /* [n_seq + 1] first piece of each sequence */
    /* optional: rows that come from elsewhere (images, audio) instead of the embedding table; NULL: none */
    const float *embd;       /* [n, dim], in the backend's memory, outside of the block */
    const int32_t *embd_row; /* [n_tok] row of embd, -1: the token's own */
    /* optional: speculation trees. Bit j: the row sees new row j of its sequence (at most 64 new rows each), besides
     * everything before them; NULL: causal */
    const uint64_t *tree; /* [n_tok] */
} fa_batch;

/* Points the arrays of a batch of at most `rows` rows and n_seq sequences into its block (n_axes, n_group and
 * page_stride are set), and sets block_bytes; block NULL: only that. */
void fa_batch_lay_out(fa_batch *b, int64_t rows, int64_t n_seq);

/* X(id, text): the operations. */
#define FA_OPS(X)                                                                                                      \
    X(NOP, "nop")                                                                                                      \
    X(EMBED, "embed")                                                                                                  \
    X(ROPE_TABLE, "rope_table")                                                                                        \
    X(NORM, "norm")                                                                                                    \
    X(LINEAR, "linear")                                                                                                \
    X(HEAD_NORM, "head_norm")                                                                                          \
    X(ROPE, "rope")                                                                                                    \
    X(APPEND, "append")                                                                                                \
    X(ATTEND, "attend")                                                                                                \
    X(GLU, "glu")                                                                                                      \
    X(ADD, "add")                                                                                                      \
    X(ROWS, "rows")                                                                                                    \
    X(SOFTCAP, "softcap")                                                                                              \
    X(SCALE, "scale")                                                                                                  \
    X(CLAMP, "clamp")                                                                                                  \
    X(COLS, "cols")                                                                                                    \
    X(ROW_GATE, "row_gate")                                                                                            \
    X(ROUTE, "route")                                                                                                  \
    X(LORA, "lora")                                                                                                    \
    X(LORA_EMBED, "lora_embed")                                                                                        \
    X(MOE, "moe")                                                                                                      \
    X(CONV, "conv")                                                                                                    \
    X(SSM1, "ssm1")                                                                                                    \
    X(SSD, "ssd")                                                                                                      \
    X(DELTA, "delta")                                                                                                  \
    X(GATE_NORM, "gate_norm")                                                                                          \
    X(PICK_COLS, "pick_cols")                                                                                          \
    X(SCALE_COLS, "scale_cols")                                                                                        \
    X(TAP, "tap")                                                                                                      \
    X(NORM_QKV, "norm_qkv")                                                                                            \
    X(LINEAR_ADD, "linear_add")                                                                                        \
    X(NORM_MLP_UP, "norm_mlp_up")

typedef enum fa_op {
#define FA_X(id, text) FA_OP_##id,
    FA_OPS(FA_X)
#undef FA_X
        FA_OP_COUNT
} fa_op;

/* Parameters by operation. Pointers lead to model-owned or arena memory. */
typedef struct fa_qkv_param {
    const fa_norm *norm;                     /* before the projections */
    const fa_linear *q, *k, *v;              /* k, v NULL: nothing goes to the cache */
    const fa_norm *q_norm, *k_norm, *v_norm; /* per head, or NULL */
    const fa_kv *kv;
    const float *rope_table; /* [n_tok, 2, n_pair] cos, sin; NULL: no rotation */
    int64_t n_pair;
    bool interleaved;
} fa_qkv_param;

typedef struct fa_attend_param {
    const fa_kv *kv;
    const float *sink; /* [n_head] or NULL */
    float scale, softcap;
    int n_head, head_dim;
    int n_split; /* decode steps: most pieces that one sequence's keys are cut into */
} fa_attend_param;

typedef struct fa_rec {
    uint8_t op; /* fa_op */
    int16_t layer;
    fa_tensor out, in[2];
    void *work; /* arena memory that the backend asked for */
    union {
        struct {
            const fa_weight *w;
            float scale;
        } embed;
        const fa_rope *rope_table;
        const fa_norm *norm;     /* NORM, HEAD_NORM: in[0] [n, heads, dim] */
        const fa_linear *linear; /* LINEAR */
        struct {
            const fa_linear *lin;
            const fa_norm *post;
        } linear_add;     /* out += post(lin(in)) */
        fa_qkv_param qkv; /* in[0] h; out q */
        struct {
            const float *table;
            int64_t n_pair, head_dim;
            bool interleaved;
        } rope; /* in place on out [n_tok, heads, head_dim] */
        struct {
            const fa_kv *kv;
        } append; /* in[0] k, in[1] v [n_tok, n_kv, head_dim] */
        fa_attend_param attend;
        struct {
            const fa_norm *norm;
            const fa_linear *gate, *up;
            fa_act_fn act;
        } mlp_up;
        fa_act_fn glu;               /* in[0] gate, in[1] up; in[1] empty: act(gate) alone */
        float add;                   /* out += add * in[0] */
        float softcap, scale, clamp; /* in place on out */
        int64_t cols;                /* COLS: out is columns [cols, cols + n) of in[0] */
        fa_act_fn row_gate;          /* row i of out *= act(in[0][i, 0]) */
        const fa_route *route; /* in[0] logits [n, n_expert]; out [n, 2 * n_used]: weights, then experts as int32 bits,
                                  by falling score */
        struct {
            const fa_moe *moe;
            float scale; /* of the sum of experts */
            bool add;    /* out += instead of = */
            int n_used;
            const fa_loras *lora[3]; /* what adapters change on gate, up and down: NULL: nothing */
            bool out_rows;           /* with lora: see below */
        } moe;                       /* in[0] x [n, dim], in[1] what ROUTE put out; out [n, dim] */
        struct {
            fa_view x;
            const fa_conv *w;
            const fa_state *state;
        } conv; /* out [n_tok, n] */
        struct {
            fa_view x, dt, b, c;
            const fa_ssm1 *w;
            const fa_state *state;
        } ssm1; /* out [n_tok, dim] */
        struct {
            fa_view x, dt, b, c;
            const fa_ssd *w;
            const fa_state *state;
        } ssd; /* out [n_tok, n_head * head_dim] */
        struct {
            fa_view q, k, v, beta, a;
            const fa_delta *w;
            const fa_state *state;
        } delta; /* out [n_tok, n_v_head * v_dim] */
        struct {
            fa_view z;
            const fa_gate *w;
        } gate_norm;             /* in place on out */
        const float *pick_cols;  /* column j of out is column [j] of in[0] */
        const float *scale_cols; /* in place: column j of out times [j] */
        struct {
            const fa_loras *list;
            const float *bias; /* of the layer itself, which y holds already; or NULL */
            bool out_rows;     /* rows of x are those of fa_batch.out_row; else those of the batch */
            float embed;       /* LORA_EMBED: the table's scale */
        } lora;                /* in[0] x [n, in], out [n, out] is added to; LORA_EMBED: out [n_tok, dim] */
        struct {
            const char *name;
        } tap; /* in[0] */
    } p;
    double bytes, flops; /* estimated memory traffic and arithmetic of the record */
} fa_rec;

typedef struct fa_program {
    fa_rec *rec;
    int n, cap;
    bool repeats;   /* a decode step, which will come again: worth a graph */
    void *replay;   /* what the backend built to run it again; see fa_backend.forget */
    size_t scratch; /* bytes per thread that the records need */
    fa_tensor out;  /* logits [n_out, vocab] */
} fa_program;

const char *fa_op_name(fa_op op);

#endif
