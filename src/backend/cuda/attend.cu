/* Attention over the paged cache on the GPU: which kernel runs which tiles, and the general kernel, in f32 for every
 * head size and cache type. The definition is src/backend/cpu/ops_attend.c; attend.h tells how work is cut.
 *
 *   decode tiles   the leading sequences with one row; the others too when none has more than ATT_FEW: keys are split
 *   other tiles    not split
 * Either goes to the tensor cores (attend_decode.cu, attend_prefill.cu) in fast mode over a cache of 16 or 8 bits, and
 * to the general kernel otherwise. Prompts over 8 bits: after attend_widen.cu.
 *
 * General kernel: 128 threads do one item, STEP keys at a time. Scores: K is widened into shared memory, a lane does
 * one key against 4 rows. Output: a thread owns columns of the head and reads V straight from memory, only where some
 * row sees it, so that what was never written is never touched. */
#include "backend/cuda/attend.h"

enum { THREADS = 128, STEP = 32 };

/* ---- the general kernel ---- */

/* Elements e and e + 1 (e even) of an array of floats of type T. */
template <int T> CU_DEV float2 pair(const void *p, int64_t e) {
    if (T == FA_F32) return *(const float2 *)((const float *)p + e);
    const uint32_t v = *(const uint32_t *)((const uint16_t *)p + e);
    return T == FA_BF16 ? make_float2(cu_bf16_lo(v), cu_bf16_hi(v)) : make_float2(cu_f16_lo(v), cu_f16_hi(v));
}

template <int T> CU_DEV float single(const void *p, int64_t e) {
    if (T == FA_F32) return ((const float *)p)[e];
    const uint16_t v = ((const uint16_t *)p)[e];
    return T == FA_BF16 ? cu_bf16(v) : cu_f16(v);
}

/* Elements c and c + 1 (c even) of row t of a head's part of a page. */
template <int T> CU_DEV float2 pair_of(const cu_att &a, const uint8_t *page, int t, int c) {
    if (T != FA_I8) return pair<T>(page, (int64_t)t * a.hd + c);
    const uint16_t *scales = (const uint16_t *)(page + (int64_t)FA_PAGE * a.hd);
    const float s = cu_f16(scales[t * cu_kvq_groups(a.hd) + c / FA_KVQ_GROUP]);
    const int8_t *q = (const int8_t *)page + (int64_t)t * a.hd + c;
    return make_float2(q[0] * s, q[1] * s);
}

template <int T> CU_DEV float single_of(const cu_att &a, const uint8_t *page, int t, int c) {
    if (T != FA_I8) return single<T>(page, (int64_t)t * a.hd + c);
    const float2 v = pair_of<T>(a, page, t, c & ~1);
    return c & 1 ? v.y : v.x;
}

/* Shared memory of a block, floats: q [16, hp], k [STEP, kst], p [16, STEP], keep [16]. kst: a multiple of 4 whose
 * quarter is odd, so that 8 lanes that read 16 bytes of 8 rows meet 32 different banks. */
CU_DEV int k_stride(int hp) { return (hp / 4 | 1) * 4; }

/* Rows of the item's unit as f32; zeros beyond hd and for rows that do not exist. */
CU_DEV void load_q(const cu_att &a, const cu_att_item &it, float *q) {
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP;
    for (int r = warp; r < ATT_ROWS; r += THREADS / CU_WARP) {
        const int row = it.rt * ATT_ROWS + r;
        const bool there = row / a.group < it.t.nq;
        const int64_t at = cu_att_at(a, it.t, it.head, row);
        for (int c = 2 * lane; c < a.hp; c += 2 * CU_WARP) {
            float2 v = make_float2(0, 0);
            if (there && c < a.hd) v = a.q_bf16 ? pair<FA_BF16>(a.q, at + c) : pair<FA_F32>(a.q, at + c);
            q[r * a.hp + c] = v.x;
            q[r * a.hp + c + 1] = v.y;
        }
    }
}

/* Keys of tokens [t0, t1) behind row `first` of a page; zeros elsewhere. */
template <int T> CU_DEV void load_k(const cu_att &a, const uint8_t *page, int first, int t0, int t1, float *k) {
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP, kst = k_stride(a.hp);
    for (int t = warp; t < STEP; t += THREADS / CU_WARP)
        for (int c = 2 * lane; c < a.hp; c += 2 * CU_WARP) {
            float2 v = make_float2(0, 0);
            if (t >= t0 && t < t1 && c < a.hd) v = pair_of<T>(a, page, first + t, c);
            k[t * kst + c] = v.x;
            k[t * kst + c + 1] = v.y;
        }
}

/* A warp's 4 rows against STEP keys from position pos on, a lane each: weights into p, factors for what was summed
 * before into keep; m, l: of the 4 rows. */
CU_DEV void scores(const cu_att &a, const float *q, const float *k, const cu_att_sees *sees, int pos, float *m,
                   float *l, float *p, float *keep) {
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP, kst = k_stride(a.hp);
    float s[4] = {0, 0, 0, 0};
    for (int c = 0; c < a.hp; c += 4) {
        const float4 x = *(const float4 *)(k + lane * kst + c);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 y = *(const float4 *)(q + (4 * warp + i) * a.hp + c);
            s[i] += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        s[i] = cu_att_visible(sees[i], pos + lane) ? cu_att_score(a, s[i]) : -INFINITY;
        float top = s[i];
        for (int d = 16; d; d /= 2) top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, d));
        top = fmaxf(top, m[i]);
        const float w = cu_att_weight(s[i], top), old = cu_att_weight(m[i], top);
        m[i] = top;
        l[i] = l[i] * old + w;
        p[(4 * warp + i) * STEP + lane] = w;
        if (lane == 0) keep[4 * warp + i] = old;
    }
}

/* acc = keep acc + p V over tokens [t0, t1) behind row `first` of a page. Columns col + i * 128; rows row0 + j. */
template <int T, int NC, int ROWS>
CU_DEV void add_v(const cu_att &a, const uint8_t *page, int first, int t0, int t1, int col, int row0, const float *p,
                  const float *keep, float (&acc)[ROWS][NC]) {
#pragma unroll
    for (int j = 0; j < ROWS; j++)
#pragma unroll
        for (int i = 0; i < NC; i++) acc[j][i] *= keep[row0 + j];
    for (int t = t0 / 4 * 4; t < t1; t += 4) {
        float v[4][NC];
#pragma unroll
        for (int u = 0; u < 4; u++)
#pragma unroll
            for (int i = 0; i < NC; i++) {
                const int c = col + i * THREADS;
                v[u][i] = t + u >= t0 && t + u < t1 && c < a.hd ? single_of<T>(a, page, first + t + u, c) : 0.0f;
            }
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            const float4 w = *(const float4 *)(p + (row0 + j) * STEP + t);
#pragma unroll
            for (int i = 0; i < NC; i++) acc[j][i] += w.x * v[0][i] + w.y * v[1][i] + w.z * v[2][i] + w.w * v[3][i];
        }
    }
}

/* HD: most elements of a head. */
template <int HD, int T> __global__ void __launch_bounds__(THREADS) attend_any(const cu_att a) {
    constexpr int COLS = HD < THREADS ? HD : THREADS, NC = HD / COLS, ROWS = ATT_ROWS * COLS / THREADS;
    CU_DYN_SMEM(smem);
    __shared__ float ml[2][ATT_ROWS];
    float *q = (float *)smem, *k = q + ATT_ROWS * a.hp, *p = k + STEP * k_stride(a.hp), *keep = p + ATT_ROWS * STEP;
    cu_pdl_launch();
    cu_pdl_wait();
    const int tid = (int)threadIdx.x, warp = tid / CU_WARP, lane = tid % CU_WARP;
    const int col = tid % COLS, row0 = tid / COLS * ROWS;
    const int chunk = cu_att_chunk(a);
    cu_att_cursor cursor = {a.tile0, 0, 0};
    cu_att_item it;
    for (int i = (int)blockIdx.x; cu_att_find(a, chunk, i, &cursor, &it); i += (int)gridDim.x) {
        if (cu_att_empty(a, it)) continue;
        float acc[ROWS][NC] = {}, m[4], l[4];
        cu_att_sees sees[4];
        for (int j = 0; j < 4; j++) {
            sees[j] = cu_att_row(a, it.t, it.rt * ATT_ROWS + 4 * warp + j);
            m[j] = -INFINITY;
            l[j] = 0;
        }
        load_q(a, it, q);
        int from, to;
        cu_att_span(it, STEP, &from, &to);
        const int32_t *pages = a.page + (int64_t)it.t.seq * a.page_stride;
        for (int pos = from; pos < to; pos += STEP) {
            const int page = pages[pos / FA_PAGE], t0 = max(it.lo - pos, 0),
                      t1 = page < 0 ? 0 : min(to - pos, (int)STEP);
            const int64_t at = page * a.page_bytes + it.head * a.head_bytes;
            load_k<T>(a, a.k + at, pos % FA_PAGE, t0, t1, k);
            __syncthreads();
            scores(a, q, k, sees, pos, m, l, p, keep);
            __syncthreads();
            add_v<T, NC, ROWS>(a, a.v + at, pos % FA_PAGE, t0, t1, col, row0, p, keep, acc);
        }
        __syncthreads();
        for (int j = 0; j < 4; j++) {
            for (int d = 16; d; d /= 2) l[j] += __shfl_xor_sync(0xFFFFFFFFu, l[j], d);
            if (lane == 0) {
                ml[0][4 * warp + j] = m[j];
                ml[1][4 * warp + j] = l[j];
            }
        }
        for (int j = 0; j < ROWS; j++)
            for (int c = 0; c < NC; c++)
                if (col + c * THREADS < a.hp) k[(row0 + j) * a.hp + col + c * THREADS] = acc[j][c];
        __syncthreads();
        cu_att_finish(a, it, k, a.hp, 1, ml[0], ml[1], q);
    }
}

static size_t any_smem(const cu_att *a) {
    size_t n = (size_t)(ATT_ROWS * a->hp + STEP * (a->hp / 4 | 1) * 4 + ATT_ROWS * STEP + ATT_ROWS) * sizeof(float);
    return n > (size_t)ATT_MERGE_BYTES ? n : (size_t)ATT_MERGE_BYTES;
}

template <int HD> static void launch_any(fa_cuda *cu, const cu_att *a, fa_dtype kv, int grid) {
    const dim3 g((unsigned)grid);
    if (kv == FA_F32)
        CU_LAUNCH(cu, (attend_any<HD, FA_F32>), g, THREADS, any_smem(a), *a);
    else if (kv == FA_F16)
        CU_LAUNCH(cu, (attend_any<HD, FA_F16>), g, THREADS, any_smem(a), *a);
    else if (kv == FA_I8)
        CU_LAUNCH(cu, (attend_any<HD, FA_I8>), g, THREADS, any_smem(a), *a);
    else
        CU_LAUNCH(cu, (attend_any<HD, FA_BF16>), g, THREADS, any_smem(a), *a);
}

static void general(fa_cuda *cu, const cu_att *a, fa_dtype kv, int grid) {
    if (a->hd <= 64)
        launch_any<64>(cu, a, kv, grid);
    else if (a->hd <= 128)
        launch_any<128>(cu, a, kv, grid);
    else if (a->hd <= 256)
        launch_any<256>(cu, a, kv, grid);
    else
        launch_any<512>(cu, a, kv, grid);
}

/* ---- what runs where ---- */

static int ceil_div(int64_t n, int64_t per) { return (int)((n + per - 1) / per); }
static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* Blocks of split launches: as many as run at once, where attend_decode takes them. */
static int grid_of(const fa_cuda *cu, const fa_attend_param *p) {
    const bool small = p->kv->dtype == FA_I8 && p->n_head <= 8 * (int)p->kv->n_head; /* keys8 of 8 rows */
    return (small ? 4 : 2) * cu->n_sm;
}

/* Units for few pairs are at most one block's work each; many pairs are cut finer, so that the last round is short. */
static int64_t items_wanted(int64_t grid, int64_t units) { return 2 * units < grid ? grid - units : 4 * grid; }

static int slot_floats(int prow, int head_dim) {
    return prow * (ceil_div(head_dim, 4) * 4) + ceil_div(2 * prow, 4) * 4;
}

/* At most 2 * items_wanted slots are used (tiles that are cut have more than half of chunk pages a split); rows are
 * taken as those of one query row, and tiles with more get fewer splits. */
static int64_t part_bytes(const fa_cuda *cu, const fa_rec *r) {
    const fa_attend_param *p = &r->p.attend;
    const int n_kv = (int)p->kv->n_head, group = p->n_head / n_kv;
    const int64_t units = r->in[0].dim[0] * n_kv * ceil_div(group, ATT_ROWS);
    const int64_t n = 2 * items_wanted(grid_of(cu, p), units) * slot_floats((int)at_most(group, ATT_ROWS), p->head_dim);
    return (n * (int64_t)sizeof(float) + 255) / 256 * 256;
}

/* Does the tensor cores' attention of prompts need the keys and values widened? */
static bool widens(const fa_cuda *cu, const fa_rec *r) {
    const fa_kv *kv = r->p.attend.kv;
    return kv->dtype == FA_I8 && !cu->be.exact && kv->head_dim % 16 == 0 && r->in[0].dim[0] > ATT_FEW;
}

static int64_t work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    const fa_attend_param *p = &r->p.attend;
    const fa_dtype kv = p->kv->dtype, q = (fa_dtype)r->in[0].dtype, out = (fa_dtype)r->out.dtype;
    if (p->head_dim < 2 || p->head_dim > 512 || p->head_dim % 2)
        return fa_fail(err, FFAI_ENOTSUP, "attend: head_dim %d: the GPU has kernels for even sizes up to 512",
                       p->head_dim);
    if (kv != FA_F32 && kv != FA_F16 && kv != FA_BF16 && kv != FA_I8)
        return fa_fail(err, FFAI_ENOTSUP, "attend: no kernel for a cache of type %s", fa_kv_type_name(kv));
    if ((q != FA_F32 && q != FA_BF16) || (out != FA_F32 && out != FA_BF16))
        return fa_fail(err, FFAI_ENOTSUP, "attend: no kernel from %s to %s", fa_dtype_name(q), fa_dtype_name(out));
    if (p->kv->n_head < 1 || p->n_head % p->kv->n_head)
        return fa_fail(err, FFAI_EINVAL, "attend: %d query heads for %lld of the cache", p->n_head,
                       (long long)p->kv->n_head);
    return part_bytes(cu, r) + (widens(cu, r) ? cu_att_widen_bytes(p->kv) : 0);
}

static cu_att args_of(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_attend_param *p = &r->p.attend;
    const fa_kv *kv = p->kv;
    cu_att a = {};
    a.q = r->in[0].data;
    a.out = r->out.data;
    a.k = kv->k;
    a.v = kv->v;
    a.sink = p->sink;
    a.kv_lo = b->kv_lo[kv->group];
    a.kv_hi = b->kv_hi;
    a.page = b->page[kv->group];
    a.row_start = b->row_start;
    a.tile_seq = b->tile_seq;
    a.tile_row = b->tile_row;
    a.tree = b->tree;
    a.part = (float *)r->work;
    a.counter = cu->counter;
    a.page_bytes = (int64_t)kv->page_bytes;
    a.head_bytes = (int64_t)kv->head_bytes;
    a.scale2 = p->scale * ATT_LOG2E;
    if (p->softcap > 0) {
        a.cap = p->softcap * ATT_LOG2E;
        a.rcap = p->scale / p->softcap;
    }
    a.n_head = p->n_head;
    a.n_kv = (int)kv->n_head;
    a.group = p->n_head / a.n_kv;
    a.hd = p->head_dim;
    a.hp = ceil_div(a.hd, 4) * 4;
    a.page_stride = b->page_stride;
    a.q_bf16 = r->in[0].dtype == FA_BF16;
    a.out_bf16 = r->out.dtype == FA_BF16;
    a.exact = cu->be.exact;
    a.n_dec = b->n_dec;
    return a;
}

/* Can the tensor core kernels read this? They copy 16 bytes at a time. */
static bool fast(const fa_cuda *cu, const fa_rec *r) {
    const fa_kv *kv = r->p.attend.kv;
    return !cu->be.exact && kv->dtype != FA_F32 && kv->head_dim % (kv->dtype == FA_I8 ? 16 : 8) == 0 &&
           kv->page_bytes % 16 == 0 && kv->head_bytes % 16 == 0 && ((uintptr_t)kv->k | (uintptr_t)kv->v) % 16 == 0;
}

/* Tiles [tile0, n_tile), of at most max_q query rows each, of the first n_seq sequences. */
static void launch_tiles(fa_cuda *cu, const fa_rec *r, cu_att a, int tile0, int n_tile, int max_q, int n_seq) {
    if (tile0 >= n_tile) return;
    fa_dtype kv = r->p.attend.kv->dtype;
    const int64_t rows = at_most(max_q, CU_ATTEND_TILE) * a.group;
    a.tile0 = tile0;
    a.n_tile = n_tile;
    a.n_rt = ceil_div(rows, ATT_ROWS);
    a.prow = (int)at_most(rows, ATT_ROWS);
    a.slot_floats = slot_floats(a.prow, a.hd);
    const int64_t per_tile = (int64_t)a.n_kv * a.n_rt, units = (n_tile - tile0) * per_tile;
    if (units > INT32_MAX) {
        cu_fail(cu, FFAI_ELIMIT, "attend: %d tiles of %d heads are more than one launch takes", n_tile - tile0,
                a.n_head);
        return;
    }
    if (max_q > ATT_FEW) {
        if (!fast(cu, r)) {
            general(cu, &a, kv, (int)units);
            return;
        }
        if (kv == FA_I8) {
            cu_att_widen(cu, &a, r->p.attend.kv, n_seq, (uint8_t *)r->work + part_bytes(cu, r));
            kv = FA_F16;
        }
        if (!cu_att_prefill(cu, &a, kv)) general(cu, &a, kv, (int)units);
        return;
    }
    const int full = grid_of(cu, &r->p.attend);
    const int64_t slots = part_bytes(cu, r) / ((int64_t)a.slot_floats * (int64_t)sizeof(float));
    if (n_tile * per_tile <= CU_COUNTERS) a.n_part = (int)(at_most(items_wanted(full, units), slots / 2) / per_tile);
    const int64_t items = units + a.n_part * per_tile;
    const int grid = a.n_part ? (int)at_most(items, full) : (int)units;
    if (!fast(cu, r) || !cu_att_decode(cu, &a, kv, grid)) general(cu, &a, kv, grid);
}

static void launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const cu_att a = args_of(cu, r, b);
    launch_tiles(cu, r, a, 0, b->n_dec, 1, b->n_dec);
    launch_tiles(cu, r, a, b->n_dec, b->n_tile, b->max_q, b->n_seq);
}

extern const cu_op cu_op_attend = {launch, work};
