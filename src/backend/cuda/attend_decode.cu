/* Attention of decode steps on tensor cores: few rows against long keys, with f32 sums.
 *
 * A block of 4 warps does one item: the 16 rows of a unit (query rows times the heads of a group; rows that do not
 * exist are zero) against a split's keys, a stage of WT * 16 keys at a time. The warps are WT key groups of WD column
 * groups: warp (wt, wd) copies, with cp.async, columns [wd * DIMS, + DIMS) of its 16 keys and values of each stage and
 * reads no other, so stages need no barrier of the block; STAGES of them are under way. With WD > 1 (head sizes above
 * 128, whose accumulators do not fit one warp) the partial scores of a key group's warps are added through shared
 * memory.
 *
 * A kind of keys (attend_keys16.cuh, attend_keys8.cuh) is a struct with the warp's share of an item:
 *   WD, DIMS, STAGES, STAGE    as above; STAGE: 16-byte pieces of shared memory of a warp and stage
 *   BLOCKS                     that are to run on a multiprocessor at once
 *   ASIDE                      floats of shared memory of a warp for what it keeps there of q
 *   SCORES, SEEN               scores of a stage that a lane has, and the number of rows they belong to
 *   key_of, seen_of, row_of    of score e: its key, and which of the lane's rows; of row i: the unit's row
 *   copy                       begins to copy keys and values of [pos, pos + 16), zeros for those outside of [lo, to).
 *                              at: bytes of the page's head within the planes; to: bytes [stage, ..) of smem
 *   begin                      q to registers (x: room for it in shared memory) and aside, and nothing seen yet
 *   scores, soften, add_values the steps of a stage
 *   end, m, l, names_row, put  the result
 *
 * Arithmetic: a multiprocessor takes about 14 bytes a cycle from memory, which for 16 bits is one 16x8x16 product per
 * 36 cycles for each 8 rows: the tensor cores are nearly idle and what counts is bytes under way, 2 blocks of 2
 * stages of 32 KiB. */
#include "backend/cuda/attend_keys16.cuh"
#include "backend/cuda/attend_keys8.cuh"

enum { THREADS = 128 };

/* Hands the warp's result to cu_att_finish: acc [WT, 16, lda], ml [2][WT * 16]. */
template <class K>
CU_DEV void put_state(const cu_att &a, K *keys, int wt, int wd, float *acc, int lda, float *m, float *l) {
    keys->end();
#pragma unroll
    for (int i = 0; i < K::SEEN; i++) {
        const int r = wt * ATT_ROWS + K::row_of(i);
        if (wd == 0 && K::names_row()) {
            m[r] = keys->m[i];
            l[r] = keys->l[i];
        }
        if (K::row_of(i) < a.prow) keys->put(i, wd * K::DIMS, a.hp, acc + r * lda);
    }
}

template <class K> __global__ void __launch_bounds__(THREADS, K::BLOCKS) attend_decode(const cu_att a) {
    constexpr int WD = K::WD, WT = 4 / WD, TOK = 16 * WT, STAGES = K::STAGES;
    CU_DYN_SMEM(smem);
    __shared__ float ml[2][WT * ATT_ROWS];
    __shared__ float xs[2][WD > 1 ? 4 * K::SCORES * CU_WARP : 1];
    __shared__ cu_att_sees sees[4][ATT_ROWS]; /* a copy for each warp: no barrier is needed */
    __shared__ __align__(16) float aside[4][K::ASIDE];
    cu_pdl_launch();
    bool waits = true; /* for q and the new keys: what the batch tells and keys of earlier steps are there already */
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP, wt = warp / WD, wd = warp % WD;
    constexpr int STAGE = 16 * K::STAGE;
    const int mine = warp * (STAGES * STAGE); /* this warp's stages in smem */
    const int chunk = cu_att_chunk(a), lda = a.hp + 8;
    cu_att_cursor cursor = {a.tile0, 0, 0};
    cu_att_item it;
    for (int i = (int)blockIdx.x; cu_att_find(a, chunk, i, &cursor, &it); i += (int)gridDim.x) {
        if (cu_att_empty(a, it)) continue;
        int from, to;
        cu_att_span(it, TOK, &from, &to);
        const int n = to > from ? (to - from + TOK - 1) / TOK : 0;
        page_walk walk;
        walk_begin(&walk, a.page + (int64_t)it.t.seq * a.page_stride, from, to);
        auto copy = [&](int step) {
            if (step < n) {
                const int pos = from + step * TOK, page = walk_page(&walk, pos / FA_PAGE);
                const int64_t at = page * a.page_bytes + it.head * a.head_bytes;
                K::copy(a, at, pos + 16 * wt, it.lo, page < 0 ? 0 : to, wd * K::DIMS, smem,
                        mine + step % STAGES * STAGE);
            }
            cu_cp_commit();
        };
        const int old = it.hi - it.t.n_new; /* positions below are older than this step */
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (waits && from + (s + 1) * TOK > old) cu_pdl_wait(), waits = false;
            copy(s);
        }
        if (waits) cu_pdl_wait(), waits = false;

        K keys;
        if (lane < ATT_ROWS) sees[warp][lane] = cu_att_row(a, it.t, it.rt * ATT_ROWS + lane);
        /* where nothing is on its way to yet */
        keys.begin(a, it, wd * K::DIMS, (uint4 *)(smem + mine + (STAGES - 1) * STAGE), aside[warp]);
        const int seen = it.t.nq == 1 ? it.lo : it.lo + it.t.n_new; /* from here to `old` every row sees all */
        for (int step = 0; step < n; step++) {
            cu_cp_wait<STAGES - 2>();
            __syncwarp(); /* all lanes' copies of this stage are there, and all have read the one before */
            copy(step + STAGES - 1);
            const int stage = mine + step % STAGES * STAGE;
            float s[K::SCORES];
            keys.scores(a, smem, stage, aside[warp], s);
            if (WD > 1) exchange<WD, K::SCORES>(xs[step % 2], s);
            const int pos = from + step * TOK + 16 * wt;
            const bool all = from + step * TOK >= seen && from + (step + 1) * TOK <= old;
#pragma unroll
            for (int e = 0; e < K::SCORES; e++) s[e] = cu_att_score(a, s[e]);
            if (!all)
#pragma unroll
                for (int e = 0; e < K::SCORES; e++)
                    if (!cu_att_visible(sees[warp][K::row_of(K::seen_of(e))], pos + K::key_of(e))) s[e] = -INFINITY;
            keys.soften(s);
            keys.add_values(a, smem, stage, it.lo - pos, to - pos);
        }
        cu_cp_wait<0>();
        __syncthreads(); /* stages become room for results */
        put_state(a, &keys, wt, wd, (float *)smem, lda, ml[0], ml[1]);
        __syncthreads();
        cu_att_finish(a, it, (const float *)smem, lda, WT, ml[0], ml[1], (float *)smem);
    }
    if (waits && blockIdx.x == 0) cu_pdl_wait(); /* the others without an item make room for the next kernel's blocks */
}

template <int HD, class K> static bool start_as(fa_cuda *cu, const cu_att *a, int grid) {
    const size_t stages = (size_t)16 * 4 * K::STAGES * K::STAGE, ends = (size_t)(4 / K::WD) * ATT_ROWS * (HD + 8) * 4;
    const size_t fixed = 1024 + (K::WD > 1 ? 8192 : 0); /* at least what the kernel declares */
    size_t smem = stages > ends ? stages : ends;
    if (smem < (size_t)ATT_MERGE_BYTES) smem = (size_t)ATT_MERGE_BYTES;
    if (smem + fixed > cu->smem_max) return false;
    CU_LAUNCH(cu, (attend_decode<K>), dim3((unsigned)grid), THREADS, smem, *a);
    return true;
}

template <int HD, int WD, int STAGES, int NT>
static bool start_rows(fa_cuda *cu, const cu_att *a, fa_dtype kv, int grid) {
    if (kv == FA_F16) return start_as<HD, keys16<HD, WD, STAGES, FA_F16, NT>>(cu, a, grid);
    if (kv == FA_BF16) return start_as<HD, keys16<HD, WD, STAGES, FA_BF16, NT>>(cu, a, grid);
    return start_as<HD, keys8<HD, WD, STAGES, NT>>(cu, a, grid);
}

template <int HD, int WD, int STAGES> static bool start(fa_cuda *cu, const cu_att *a, fa_dtype kv, int grid) {
    return a->prow <= 8 ? start_rows<HD, WD, STAGES, 1>(cu, a, kv, grid)
                        : start_rows<HD, WD, STAGES, 2>(cu, a, kv, grid);
}

bool cu_att_decode(fa_cuda *cu, const cu_att *a, fa_dtype kv, int grid) {
    if (a->hd <= 64) return start<64, 1, 3>(cu, a, kv, grid);
    if (a->hd <= 128) return start<128, 1, 3>(cu, a, kv, grid);
    if (a->hd <= 256) return start<256, 2, 3>(cu, a, kv, grid) || start<256, 2, 2>(cu, a, kv, grid);
    return start<512, 4, 3>(cu, a, kv, grid) || start<512, 4, 2>(cu, a, kv, grid);
}
