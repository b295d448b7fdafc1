/* What all three vector ISAs share: inlining, unrolling and the names that their headers (kern_simd_<isa>.h) define.
 *
 * A kernel template (kern_body_*.h) is written against this vocabulary; the ISA file includes its vocabulary, then the
 * template:
 *   vf, VL            a vector of VL floats
 *   v_load v_store    VL floats at any byte; v_loadn v_storen: only the first n < VL lanes, the rest reads as 0
 *   v_ld v_ldn        the same from an array of type t (F32, F16, BF16), widened; element index i
 *   v_ldp             2 VL values in pair order: for BF16 the even places, then the odd ones (two cheap operations on
 *                     one load, where order would take two unpackings); for other types in order
 *   v_low_half v_high_half  a half of each lane's bits, a BF16, as a float
 *   v_st v_stn        narrowed to type t, nearest even
 *   v_ld2 v_st2       2 VL floats split into even and odd places, and back
 *   v_set1 v_iota v_add v_sub v_mul v_div v_fma (a b + c) v_fnma (c - a b) v_abs v_round (nearest even)
 *   v_min v_max       a NaN in the second operand comes through
 *   v_lt(a, b, x, y)  per lane: a < b ? x : y
 *   v_sign(x, s)      |x| with the sign of s
 *   v_ldexp(p, n)     p * 2^n for integral n in [-160, 160], with gradual underflow and overflow to infinity
 *   v_pack            the lanes with lo <= x <= hi to out, first + their places to id, in order; returns how many. Up
 *                     to VL elements of both are overwritten
 *   v_sum v_top       over the lanes; v_sum4: four vectors to four sums
 *   v_transpose       VL vectors in place
 *   V_MR, V_NV        register tile of a matrix product: V_MR rows of V_NV vectors, V_NV even
 *   V_DR              query rows that the streaming attention keeps in registers together with four tokens */
#ifndef FA_CPU_KERN_SIMD_H
#define FA_CPU_KERN_SIMD_H

#include "tensor/dtype.h"

#define V_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define V_UNROLL _Pragma("clang loop unroll(full)")
#else
#define V_UNROLL _Pragma("GCC unroll 16")
#endif

#endif
