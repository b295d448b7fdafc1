/* Machine instructions that C++ has no word for, one function each. Under emulation emu.h defines the same functions in
 * plain C++. 16-bit floats travel as uint16_t, pairs of them as uint32_t (element 0 in the low half). */
#ifndef FA_CUDA_PTX_H
#define FA_CUDA_PTX_H

#include "backend/cuda/cu_rt.h"

#ifndef FA_CUDA_EMU

#define CU_DEV static __device__ __forceinline__

/* ---- conversions ---- */
CU_DEV float cu_bf16(uint16_t v) { return __uint_as_float((uint32_t)v << 16); }
CU_DEV float cu_bf16_lo(uint32_t v) { return __uint_as_float(v << 16); }
CU_DEV float cu_bf16_hi(uint32_t v) { return __uint_as_float(v & 0xFFFF0000u); }
CU_DEV uint16_t cu_to_bf16(float f) {
    uint16_t r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(f));
    return r;
}
CU_DEV uint32_t cu_to_bf16x2(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
CU_DEV float cu_f16(uint16_t v) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v));
    return r;
}
CU_DEV float cu_f16_lo(uint32_t v) { return cu_f16((uint16_t)v); }
CU_DEV float cu_f16_hi(uint32_t v) { return cu_f16((uint16_t)(v >> 16)); }
CU_DEV uint16_t cu_to_f16(float f) {
    uint16_t r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(f));
    return r;
}
CU_DEV uint32_t cu_to_f16x2(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
/* a * b + c on pairs */
CU_DEV uint32_t cu_bf16x2_fma(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
/* a - b and a * b on pairs */
CU_DEV uint32_t cu_f16x2_sub(uint32_t a, uint32_t b) {
    uint32_t r;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
CU_DEV uint32_t cu_f16x2_mul(uint32_t a, uint32_t b) {
    uint32_t r;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
/* (a & b) | c in one instruction */
CU_DEV uint32_t cu_and_or(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
CU_DEV float cu_exp2(float x) { /* approximate, 2 ulp; 0 for -inf */
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* A value is computed before what follows, not where it is used. */
CU_DEV void cu_here(const uint8_t *&p) { asm volatile("" : "+l"(p)); }

/* ---- memory ---- */
/* 16 bytes that are read once: past the first-level cache. p: global, 16-byte aligned. */
CU_DEV uint4 cu_ld_stream(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
CU_DEV void cu_prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
/* 16 bytes global to shared without passing registers; n < 16: the rest becomes zero (n 0: p is not read). */
CU_DEV void cu_cp_async(void *smem, const void *p, int n = 16) {
    uint32_t s = (uint32_t)__cvta_generic_to_shared(smem);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(s), "l"(p), "r"(n) : "memory");
}
/* 4 bytes, or (n 0) zeros */
CU_DEV void cu_cp_async4(void *smem, const void *p, int n = 4) {
    uint32_t s = (uint32_t)__cvta_generic_to_shared(smem);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(s), "l"(p), "r"(n) : "memory");
}
CU_DEV void cu_cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> CU_DEV void cu_cp_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* ---- tensor cores ----
 * d [16, 8] f32 += a [16, 16] b [16, 8]. With g = lane / 4 and t = lane % 4 a lane holds, as pairs of neighbours along
 * k: a[0] = (row g, k 2t), a[1] = (row g + 8, k 2t), a[2] = (row g, k 2t + 8), a[3] = (row g + 8, k 2t + 8); b[0] = (k
 * 2t, column g), b[1] = (k 2t + 8, column g); d[0..1] = (row g, columns 2t, 2t + 1), d[2..3] = (row g + 8, the same).
 */
CU_DEV void cu_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
CU_DEV void cu_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* The nearest number with 10 bits of mantissa. */
CU_DEV uint32_t cu_to_tf32(float f) {
    uint32_t r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(f));
    return r;
}
/* d [16, 8] f32 += a [16, 8] b [8, 8], of f32 whose low 13 bits are ignored: a[0] = (row g, k t), a[1] = (row g + 8, k
 * t), a[2] = (row g, k t + 4), a[3] = (row g + 8, k t + 4); b[0] = (k t, column g), b[1] = (k t + 4, column g); d as
 * above. */
CU_DEV void cu_mma_tf32(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* d [16, 8] s32 += a [16, 32] of u8 times b [32, 8] of s8; four neighbours along k in a word: a[0] = (row g, k 4t),
 * a[1] = (row g + 8, k 4t), a[2] = (row g, k 4t + 16), a[3] = (row g + 8, k 4t + 16); b[0] = (k 4t, column g), b[1] =
 * (k 4t + 16, column g); d as above. */
CU_DEV void cu_mma_u8s8(int d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Four 8x8 matrices of 16-bit elements from shared memory: lane l gives the address of row l % 8 of matrix l / 8 and
 * gets elements (row g, 2t..2t+1) of each; trans: of each one transposed. */
CU_DEV void cu_ldmatrix_x4(uint32_t r[4], const void *smem_row) {
    uint32_t s = (uint32_t)__cvta_generic_to_shared(smem_row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s)
                 : "memory");
}
CU_DEV void cu_ldmatrix_x4_trans(uint32_t r[4], const void *smem_row) {
    uint32_t s = (uint32_t)__cvta_generic_to_shared(smem_row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s)
                 : "memory");
}

/* An 8x8 matrix of 16-bit elements, of which lane (g, t) has (row g, columns 2t, 2t + 1), transposed. */
CU_DEV uint32_t cu_transpose_8x8(uint32_t v) {
    uint32_t r;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
    return r;
}

/* ---- programmatic dependent launch ----
 * Every kernel calls cu_pdl_launch once near its beginning (the next kernel's blocks may become resident) and
 * cu_pdl_wait before it touches anything that earlier kernels write or read: activations, caches, batch integers,
 * counters. Only weights may be read before. Without dependent launch both do nothing. */
CU_DEV void cu_pdl_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
CU_DEV void cu_pdl_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif /* FA_CUDA_EMU */
#endif
