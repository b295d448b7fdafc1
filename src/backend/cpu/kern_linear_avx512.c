/* Matrix products with AVX-512 but without VNNI: byte products through vpmaddubsw, which is exact as long as pairs stay
 * under 2^15. */
#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"

#include "backend/cpu/kern_x86_avx512.h"

#define WIDE_CODES 0
#define DOT_M      4

/* codes up to 127: |pair| <= 2 * 127 * 127 */
static inline vi vi_dp(vi acc, vi w, vi x) {
    return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
}
/* signed codes: |w| times x with the sign of w, |pair| <= 2 * 128 * 127 */
static inline vi vi_dps(vi acc, vi w, vi x) {
    return vi_dp(acc, _mm512_abs_epi8(w), _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x));
}

#include "backend/cpu/kern_body_linear.h"

void fa_kern_linear_init_avx512(fa_kernels *k) { linear_init(k); }
