/* Matrix products with AVX2, FMA and F16C. Byte products go through vpmaddubsw, which is exact as long as pairs stay
 * under 2^15. */
#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"

#include "backend/cpu/kern_x86_avx2.h"

#define WIDE_CODES 0
#define DOT_M      4

/* codes up to 127: |pair| <= 2 * 127 * 127 */
static inline vi vi_dp(vi acc, vi w, vi x) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
/* signed codes: |w| times x with the sign of w, |pair| <= 2 * 128 * 127 */
static inline vi vi_dps(vi acc, vi w, vi x) { return vi_dp(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w)); }
/* w0 x0 + w1 x1, codes up to 15: four bytes' products fit 16 bits */
static inline vi vi_dp2(vi w0, vi x0, vi w1, vi x1) {
    return _mm256_madd_epi16(_mm256_add_epi16(_mm256_maddubs_epi16(w0, x0), _mm256_maddubs_epi16(w1, x1)),
                             _mm256_set1_epi16(1));
}

#define ROW_BODY "backend/cpu/kern_body_rows256.h"
#include "backend/cpu/kern_body_linear.h"

void fa_kern_linear_init_avx2(fa_kernels *k) { linear_init(k); }
