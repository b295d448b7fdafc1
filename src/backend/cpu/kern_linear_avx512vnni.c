/* Matrix products with AVX-512 VNNI: vpdpbusd takes the canonical u8 codes and the s8 activations as they are. */
#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"

#include "backend/cpu/kern_x86_avx512.h"

#define WIDE_CODES 1
#define DOT_M      4

static inline vi vi_dp(vi acc, vi w, vi x) { return _mm512_dpbusd_epi32(acc, w, x); }
static inline vi vi_dps(vi acc, vi w, vi x) { return _mm512_dpbusd_epi32(acc, w, x); } /* never called: WIDE_CODES */

#include "backend/cpu/kern_x86_avx512_rows.h"
#include "backend/cpu/kern_body_linear.h"

void fa_kern_linear_init_avx512vnni(fa_kernels *k) { linear_init(k); }
