/* Hopper's matrix instructions (sm_90a): warpgroups multiply asynchronously, barriers in shared memory count copies and
 * arrivals. Like cu_ptx.h, one function an instruction; emu.h has the same ones in plain C++. Source: PTX ISA 8, wgmma,
 * mbarrier. Kernels guard what has wgmma with CU_HAS_WGMMA, and barriers and the copy engine, which later chips have
 * too, with CU_HAS_BULK: code for other architectures has no such instructions. */
#ifndef FA_CUDA_WGMMA_H
#define FA_CUDA_WGMMA_H

#include "backend/cuda/cu_ptx.h"

#if defined(FA_CUDA_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CU_HAS_WGMMA 1
#else
#define CU_HAS_WGMMA 0
#endif

#if defined(FA_CUDA_EMU) || __CUDA_ARCH__ >= 900
#define CU_HAS_BULK 1
#else
#define CU_HAS_BULK 0
#endif

/* Descriptor of a matrix in shared memory whose columns lie along k, 64 elements of 2 bytes a row: rows of 128 bytes,
 * eight of them after one another from a multiple of 1024 bytes on, their 16-byte pieces swizzled: piece c of row r
 * lies at c ^ (r % 8). addr: cu_smem_addr of the first row, plus 32 for each 16 columns of k to skip. Fields: address /
 * 16 (14 bits), leading offset (unused here), offset / 16 of the next eight rows (bits 32..45), 128-byte swizzle (1 at
 * bit 62). */
CU_DEV uint64_t cu_wgmma_desc(uint32_t addr) {
    return (uint64_t)(addr >> 4 & 0x3FFF) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
/* The same of a matrix b whose columns lie along n (cu_wgmma_rs with TRANS): rows are 64 columns of one k, and the next
 * 64 columns begin `next` bytes behind them (leading offset). 16 steps of k further: 2048 bytes. */
CU_DEV uint64_t cu_wgmma_desc_n(uint32_t addr, uint32_t next) {
    return (uint64_t)(addr >> 4 & 0x3FFF) | (uint64_t)(next >> 4 & 0x3FFF) << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}

/* A place in a ring of N slots, and the parity of the phase that its barriers are waited for: 0 begins with slots that
 * others fill, 1 with slots that are free. */
template <int N> struct cu_ring {
    int slot, phase;
    __device__ __forceinline__ void step() {
        if (++slot == N) slot = 0, phase ^= 1;
    }
};

#ifndef FA_CUDA_EMU

typedef CUtensorMap cu_tma; /* an array in global memory as the copy engine sees it; kernels get it __grid_constant__ */

CU_DEV uint32_t cu_smem_addr(const void *smem) { return (uint32_t)__cvta_generic_to_shared(smem); }

/* ---- barriers ----
 * bar: cu_smem_addr of 8 bytes. A barrier counts n arrivals and then begins anew; phases alternate between parity 0
 * (the first) and 1. A wait for a parity returns when the phase of that parity has ended: on a new barrier waiting for
 * parity 1 returns at once. */
CU_DEV void cu_mbar_init(uint32_t bar, int n) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(n) : "memory");
}
CU_DEV void cu_mbar_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* An arrival when all copies (cu_cp_async) that this thread began have come. */
CU_DEV void cu_mbar_arrive_cp(uint32_t bar) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}
/* An arrival; and the phase does not end before that many bytes have come by cu_tma_load. */
CU_DEV void cu_mbar_expect(uint32_t bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
CU_DEV void cu_mbar_wait(uint32_t bar, int parity) {
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(bar), "r"(parity)
                     : "memory");
    } while (!done);
}
/* Barrier number id (1 to 15) of n threads, whole warps: those that sync wait until n have synced or arrived. */
CU_DEV void cu_bar_sync(int id, int n) { asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(n) : "memory"); }
CU_DEV void cu_bar_arrive(int id, int n) { asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(n) : "memory"); }

/* ---- the copy engine ----
 * One thread begins to copy the map's box at (c0, c1, c2, c3) to shared memory; what lies outside of the array becomes
 * zero. The box's bytes count for bar, all of them. `to`: cu_smem_addr, a multiple of 1024 for boxes with the swizzle
 * of wgmma. */
CU_DEV void cu_tma_load(uint32_t to, const cu_tma *map, uint32_t bar, int c0, int c1, int c2, int c3) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
                 "%6}], [%2];" ::"r"(to),
                 "l"(map), "r"(bar), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}
/* n bytes, a multiple of 16, both places too. */
CU_DEV void cu_bulk_load(uint32_t to, const void *from, uint32_t bar, int n) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(n), "r"(bar)
                 : "memory");
}
/* Shared memory that was written by copies and stores may now be read by wgmma. */
CU_DEV void cu_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* The value is computed here, not later: before the fence of the product that takes it. */
CU_DEV void cu_pin(uint32_t &v) { asm volatile("" : "+r"(v)::"memory"); }

#if CU_HAS_WGMMA

/* Registers of a thread from here on; for all warps of a warpgroup. N is a multiple of 8. */
template <int N> CU_DEV void cu_more_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> CU_DEV void cu_fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

/* ---- products of a warpgroup (128 threads, the first a multiple of 128) ----
 * Before products whose registers were written: the fence. Products run in order, at some time until the wait for their
 * group; till then nobody touches d, nor the shared memory of b. */
CU_DEV void cu_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
CU_DEV void cu_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> CU_DEV void cu_wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

/* clang-format off */
#define CU_WG_R0 "%0,%1,%2,%3,%4,%5,%6,%7"
#define CU_WG_R1 "%8,%9,%10,%11,%12,%13,%14,%15"
#define CU_WG_R2 "%16,%17,%18,%19,%20,%21,%22,%23"
#define CU_WG_R3 "%24,%25,%26,%27,%28,%29,%30,%31"
#define CU_WG_R4 "%32,%33,%34,%35,%36,%37,%38,%39"
#define CU_WG_R5 "%40,%41,%42,%43,%44,%45,%46,%47"
#define CU_WG_R6 "%48,%49,%50,%51,%52,%53,%54,%55"
#define CU_WG_R7 "%56,%57,%58,%59,%60,%61,%62,%63"
#define CU_WG_R8 "%64,%65,%66,%67,%68,%69,%70,%71"
#define CU_WG_R9 "%72,%73,%74,%75,%76,%77,%78,%79"
#define CU_WG_R10 "%80,%81,%82,%83,%84,%85,%86,%87"
#define CU_WG_R11 "%88,%89,%90,%91,%92,%93,%94,%95"
#define CU_WG_R12 "%96,%97,%98,%99,%100,%101,%102,%103"
#define CU_WG_R13 "%104,%105,%106,%107,%108,%109,%110,%111"
#define CU_WG_R14 "%112,%113,%114,%115,%116,%117,%118,%119"
#define CU_WG_R15 "%120,%121,%122,%123,%124,%125,%126,%127"
#define CU_WG_S1 CU_WG_R0
#define CU_WG_S2 CU_WG_S1 "," CU_WG_R1
#define CU_WG_S3 CU_WG_S2 "," CU_WG_R2
#define CU_WG_S4 CU_WG_S3 "," CU_WG_R3
#define CU_WG_S5 CU_WG_S4 "," CU_WG_R4
#define CU_WG_S6 CU_WG_S5 "," CU_WG_R5
#define CU_WG_S7 CU_WG_S6 "," CU_WG_R6
#define CU_WG_S8 CU_WG_S7 "," CU_WG_R7
#define CU_WG_S9 CU_WG_S8 "," CU_WG_R8
#define CU_WG_S10 CU_WG_S9 "," CU_WG_R9
#define CU_WG_S11 CU_WG_S10 "," CU_WG_R10
#define CU_WG_S12 CU_WG_S11 "," CU_WG_R11
#define CU_WG_S13 CU_WG_S12 "," CU_WG_R12
#define CU_WG_S14 CU_WG_S13 "," CU_WG_R13
#define CU_WG_S15 CU_WG_S14 "," CU_WG_R14
#define CU_WG_S16 CU_WG_S15 "," CU_WG_R15
#define CU_WG_D(i)                                                                                                     \
    "+f"(d[8 * i]), "+f"(d[8 * i + 1]), "+f"(d[8 * i + 2]), "+f"(d[8 * i + 3]), "+f"(d[8 * i + 4]),                    \
        "+f"(d[8 * i + 5]), "+f"(d[8 * i + 6]), "+f"(d[8 * i + 7])

#define CU_WG_E1 CU_WG_D(0)
#define CU_WG_E2 CU_WG_E1, CU_WG_D(1)
#define CU_WG_E3 CU_WG_E2, CU_WG_D(2)
#define CU_WG_E4 CU_WG_E3, CU_WG_D(3)
#define CU_WG_E5 CU_WG_E4, CU_WG_D(4)
#define CU_WG_E6 CU_WG_E5, CU_WG_D(5)
#define CU_WG_E7 CU_WG_E6, CU_WG_D(6)
#define CU_WG_E8 CU_WG_E7, CU_WG_D(7)
#define CU_WG_E9 CU_WG_E8, CU_WG_D(8)
#define CU_WG_E10 CU_WG_E9, CU_WG_D(9)
#define CU_WG_E11 CU_WG_E10, CU_WG_D(10)
#define CU_WG_E12 CU_WG_E11, CU_WG_D(11)
#define CU_WG_E13 CU_WG_E12, CU_WG_D(12)
#define CU_WG_E14 CU_WG_E13, CU_WG_D(13)
#define CU_WG_E15 CU_WG_E14, CU_WG_D(14)
#define CU_WG_E16 CU_WG_E15, CU_WG_D(15)
#define CU_WG_DO(n, type, regs, ops, ...)                                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" regs "}, " ops ";"                \
                 : __VA_ARGS__                                                                                         \
                 : CU_WG_IN)
#define CU_WG(n, regs, ops, ...)                                                                                       \
    if constexpr (F16) CU_WG_DO(n, "f16", regs, ops, __VA_ARGS__);                                                     \
    else CU_WG_DO(n, "bf16", regs, ops, __VA_ARGS__)

/* d [64, N] f32 += a [64, 16] b [16, N], bf16 or f16; N a multiple of 16. Warp w of the group has rows 16 w and on of a
 * and d, in which a lane holds what it holds in cu_mma_bf16, d's columns in steps of 8: d[4 j + i] is cu_mma_bf16's
 * d[i] of columns 8 j and on. b: a descriptor; TRANS: cu_wgmma_desc_n. FRESH: d is not read. */
template <int N, bool F16 = false, bool TRANS = false, bool FRESH = false>
CU_DEV void cu_wgmma_rs(float (&d)[N / 2], const uint32_t (&f)[4], uint64_t b) {
#define CU_WG_IN "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "l"(b), "n"(!FRESH), "n"(TRANS)
    if constexpr (N == 16) {
        CU_WG("16", CU_WG_S1, "{%8, %9, %10, %11}, %12, %13, 1, 1, %14", CU_WG_E1);
    } else if constexpr (N == 32) {
        CU_WG("32", CU_WG_S2, "{%16, %17, %18, %19}, %20, %21, 1, 1, %22", CU_WG_E2);
    } else if constexpr (N == 48) {
        CU_WG("48", CU_WG_S3, "{%24, %25, %26, %27}, %28, %29, 1, 1, %30", CU_WG_E3);
    } else if constexpr (N == 64) {
        CU_WG("64", CU_WG_S4, "{%32, %33, %34, %35}, %36, %37, 1, 1, %38", CU_WG_E4);
    } else if constexpr (N == 80) {
        CU_WG("80", CU_WG_S5, "{%40, %41, %42, %43}, %44, %45, 1, 1, %46", CU_WG_E5);
    } else if constexpr (N == 96) {
        CU_WG("96", CU_WG_S6, "{%48, %49, %50, %51}, %52, %53, 1, 1, %54", CU_WG_E6);
    } else if constexpr (N == 112) {
        CU_WG("112", CU_WG_S7, "{%56, %57, %58, %59}, %60, %61, 1, 1, %62", CU_WG_E7);
    } else if constexpr (N == 128) {
        CU_WG("128", CU_WG_S8, "{%64, %65, %66, %67}, %68, %69, 1, 1, %70", CU_WG_E8);
    } else if constexpr (N == 144) {
        CU_WG("144", CU_WG_S9, "{%72, %73, %74, %75}, %76, %77, 1, 1, %78", CU_WG_E9);
    } else if constexpr (N == 160) {
        CU_WG("160", CU_WG_S10, "{%80, %81, %82, %83}, %84, %85, 1, 1, %86", CU_WG_E10);
    } else if constexpr (N == 192) {
        CU_WG("192", CU_WG_S12, "{%96, %97, %98, %99}, %100, %101, 1, 1, %102", CU_WG_E12);
    } else if constexpr (N == 256) {
        CU_WG("256", CU_WG_S16, "{%128, %129, %130, %131}, %132, %133, 1, 1, %134", CU_WG_E16);
    } else {
        static_assert(N == 16, "width of a product");
    }
#undef CU_WG_IN
}
template <int N> CU_DEV void cu_wgmma_bf16(float (&d)[N / 2], const uint32_t (&f)[4], uint64_t b) {
    cu_wgmma_rs<N>(d, f, b);
}

/* The same with a in shared memory; a: descriptor of its 64 rows, as of b. */
template <int N, bool F16, bool FRESH> CU_DEV void cu_wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b) {
#define CU_WG_IN "l"(a), "l"(b), "n"(!FRESH)
    if constexpr (N == 64) {
        CU_WG("64", CU_WG_S4, "%32, %33, %34, 1, 1, 0, 0", CU_WG_E4);
    } else if constexpr (N == 80) {
        CU_WG("80", CU_WG_S5, "%40, %41, %42, 1, 1, 0, 0", CU_WG_E5);
    } else if constexpr (N == 96) {
        CU_WG("96", CU_WG_S6, "%48, %49, %50, 1, 1, 0, 0", CU_WG_E6);
    } else if constexpr (N == 112) {
        CU_WG("112", CU_WG_S7, "%56, %57, %58, 1, 1, 0, 0", CU_WG_E7);
    } else if constexpr (N == 128) {
        CU_WG("128", CU_WG_S8, "%64, %65, %66, 1, 1, 0, 0", CU_WG_E8);
    } else if constexpr (N == 160) {
        CU_WG("160", CU_WG_S10, "%80, %81, %82, 1, 1, 0, 0", CU_WG_E10);
    } else if constexpr (N == 192) {
        CU_WG("192", CU_WG_S12, "%96, %97, %98, 1, 1, 0, 0", CU_WG_E12);
    } else {
        static_assert(N == 64, "width of a product");
    }
#undef CU_WG_IN
}
/* clang-format on */

#endif /* CU_HAS_WGMMA */
#endif /* FA_CUDA_EMU */
#endif
