/* Matrix products with AVX-512 VNNI: vpdpbusd takes the canonical u8 codes and the s8 activations as they are. */
#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"

#include "backend/cpu/kern_x86_avx512.h"

#define WIDE_CODES 1
#define DOT_M      4

/* As an instruction: for gcc 12 the intrinsic changes the type of the vector each time, which costs the innermost loops
 * a register and a copy per product. */
static inline vi vi_dp(vi acc, vi w, vi x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
    return acc;
}
/* The same with four bytes at p to every lane, in one instruction: loads of their own would fill the front end. */
static inline vi vi_dp4(vi acc, vi w, const int8_t *p) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const int8_t(*)[4])(const void *)p));
    return acc;
}
static inline vi vi_dps(vi acc, vi w, vi x) { return _mm512_dpbusd_epi32(acc, w, x); } /* never called: WIDE_CODES */

#include "backend/cpu/kern_x86_avx512_rows.h"
#include "backend/cpu/kern_body_linear.h"

void fa_kern_linear_init_avx512vnni(fa_kernels *k) { linear_init(k); }

void fa_kern_linear_q8_avx512vnni(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x,
                                  float *y, int64_t ldy, bool add, void *scratch) {
    linear_q8(k, w, r0, r1, x, y, ldy, add, scratch);
}
