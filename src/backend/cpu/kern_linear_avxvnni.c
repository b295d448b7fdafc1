/* Matrix products with AVX2 and AVX-VNNI (machines with 256-bit vectors only): the avx2 level's kernels with vpdpbusd,
 * which takes the canonical u8 codes and the s8 activations as they are. */
#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"

#include "backend/cpu/kern_x86_avx2.h"

#define WIDE_CODES 1
#define DOT_M      4

static inline vi vi_dp(vi acc, vi w, vi x) { return _mm256_dpbusd_avx_epi32(acc, w, x); }
static inline vi vi_dps(vi acc, vi w, vi x) { return vi_dp(acc, w, x); } /* never called: WIDE_CODES */
static inline vi vi_dp2(vi w0, vi x0, vi w1, vi x1) { return vi_dp(vi_dp(vi_zero(), w0, x0), w1, x1); }

#define ROW_BODY "backend/cpu/kern_body_rows256.h"
#include "backend/cpu/kern_body_linear.h"

void fa_kern_linear_init_avxvnni(fa_kernels *k) { linear_init(k); }
