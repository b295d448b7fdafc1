/* The keys and values of an 8-bit cache as f16, for the kernels of prompts: what the rows of a step's prompts see, one
 * layer at a time, in the record's work memory. A prompt reads its keys once for each tile and pair of heads; widening
 * them once costs 4 bytes of traffic an element, less than widening them in each of those reads, and lets the copy
 * engine bring them.
 *
 * Pages keep their numbers, so the page tables of the cache hold for the widened ones: [pages, heads, FA_PAGE, hd] of
 * keys, then the same of values. Pages that nobody sees are not touched. */
#include "backend/cuda/attend.h"

enum { THREADS = 256 };

/* Positions [lo, hi) hold all that the rows of a sequence see. Called by all threads of a block. */
CU_DEV void seen_of(const cu_att &a, int seq, int (&range)[2], int *lo, int *hi) {
    const int row0 = a.row_start[seq], row1 = a.row_start[seq + 1], base = a.kv_hi[row0] - 1;
    if (threadIdx.x == 0) range[0] = INT32_MAX, range[1] = 0;
    __syncthreads();
    int from = INT32_MAX, to = 0;
    for (int r = row0 + (int)threadIdx.x; r < row1; r += THREADS) {
        const int l = a.kv_lo[r], h = a.kv_hi[r];
        if (!a.tree && l >= h) continue;
        from = min(from, a.tree ? min(l, base) : l);
        to = max(to, a.tree ? base + row1 - row0 : h);
    }
    atomicMin(&range[0], from);
    atomicMax(&range[1], to);
    __syncthreads();
    *hi = range[1];
    *lo = min(max(range[0], 0), *hi);
}

/* 16 codes that have one scale as f16, two pieces of 8. */
CU_DEV void widen_16(uint4 codes, uint16_t scale, uint4 *lo, uint4 *hi) {
    const uint32_t in[4] = {codes.x, codes.y, codes.z, codes.w}, s = scale * 0x10001u;
    uint32_t out[8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = cu_att_code_scaled(cu_att_code_lo(in[i] ^ ATT_TURN), s);
        out[2 * i + 1] = cu_att_code_scaled(cu_att_code_hi(in[i] ^ ATT_TURN), s);
    }
    *lo = make_uint4(out[0], out[1], out[2], out[3]);
    *hi = make_uint4(out[4], out[5], out[6], out[7]);
}

/* Grid: (blocks that share a sequence's pages, sequences from seq0 on). k, v: widened. A thread takes 16 codes, which
 * have one scale. */
__global__ void __launch_bounds__(THREADS) attend_widen(const cu_att a, int seq0, uint4 *k, uint4 *v) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int seq = seq0 + (int)blockIdx.y, ch = a.hd / 16, groups = cu_kvq_groups(a.hd);
    const int32_t *table = a.page + (int64_t)seq * a.page_stride;
    const int per = FA_PAGE * ch, n = a.n_kv * per; /* pieces of a head's part of a page, and of a page */
    __shared__ int range[2];
    int lo, hi;
    seen_of(a, seq, range, &lo, &hi);
    for (int p = lo / FA_PAGE + (int)blockIdx.x; p * FA_PAGE < hi; p += (int)gridDim.x) {
        const int page = table[p];
        if (page < 0) continue;
#pragma unroll 4
        for (int e = (int)threadIdx.x; e < 2 * n; e += THREADS) {
            const int i = e < n ? e : e - n, head = i / per, in = i % per;
            const uint8_t *from = (e < n ? a.k : a.v) + page * a.page_bytes + head * a.head_bytes;
            const uint16_t *scales = (const uint16_t *)(from + (int64_t)FA_PAGE * a.hd);
            uint4 *out = (e < n ? k : v) + 2 * ((int64_t)page * n + i);
            widen_16(((const uint4 *)from)[in], scales[in / ch * groups + in % ch / 2], out, out + 1);
        }
    }
}

static int64_t plane_bytes(const fa_kv *kv) { return kv->n_page * kv->n_head * FA_PAGE * kv->head_dim * 2; }

int64_t cu_att_widen_bytes(const fa_kv *kv) { return 2 * plane_bytes(kv); }

void cu_att_widen(fa_cuda *cu, cu_att *a, const fa_kv *kv, int n_seq, uint8_t *to) {
    uint8_t *k = to, *v = to + plane_bytes(kv);
    const int seqs = n_seq - a->n_dec, share = (4 * cu->n_sm + seqs - 1) / seqs;
    const dim3 grid((unsigned)(share < a->page_stride ? share : a->page_stride), (unsigned)seqs);
    CU_LAUNCH(cu, attend_widen, grid, THREADS, 0, *a, a->n_dec, (uint4 *)k, (uint4 *)v);
    a->k = k, a->v = v;
    a->head_bytes = 2 * FA_PAGE * kv->head_dim;
    a->page_bytes = kv->n_head * a->head_bytes;
}
