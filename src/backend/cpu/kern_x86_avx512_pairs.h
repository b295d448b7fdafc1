/* Panels of bf16 weights: rows interleaved as pairs of columns, [pairs][rows][2], so that lanes are weight rows. */
#ifndef FA_CPU_KERN_X86_AVX512_PAIRS_H
#define FA_CPU_KERN_X86_AVX512_PAIRS_H

#include "backend/cpu/kern_x86_avx512.h"
#include "tensor/qfmt.h"

/* Rows [r, r + n) of w into a panel of nr = nv * LN rows. Rows past n are zeros, and so are the columns that make the
 * pairs a multiple of `whole`, a divisor of LN. */
static void pairs_fill(const fa_weight *w, int64_t r, int n, int nv, int whole, uint32_t *out) {
    const int64_t K = w->cols, pairs = ((K + 1) / 2 + whole - 1) / whole * whole, nr = nv * LN;
    for (int v = 0; v < nv; v++)
        for (int64_t c = 0; c < pairs; c += LN) {
            const int64_t left = K - 2 * c, more = pairs - c < LN ? pairs - c : LN;
            const __mmask32 there = left >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << left) - 1;
            __m512i t[LN];
            for (int i = 0; i < LN; i++) {
                const int row = v * LN + i < n ? v * LN + i : 0;
                const uint8_t *from = w->codes + (size_t)(r + row) * w->row_bytes + 4 * (size_t)c;
                t[i] = _mm512_maskz_loadu_epi16(v * LN + i < n ? there : 0, from);
            }
            transpose16(t);
            uint32_t *to = out + c * nr + v * LN;
            for (int64_t i = 0; i < more; i++) _mm512_storeu_si512(to + i * nr, t[i]);
        }
}

#endif
