/* Matrix products with Intel AMX (tiles, int8 and bf16) over AVX-512 VNNI: the tile operations of kern_body_amx.h as
 * instructions. Threads need no preparation: the process has asked for the tiles (kern_init.c). */
#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"
#include "backend/cpu/kern_simd.h"

#include "backend/cpu/kern_x86_avx512_pairs.h"

/* Compilers' definitions of these say too little about the memory that tiles read. */
#define SEEN(p) __asm__ volatile("" : : "r"(p) : "memory")
#define AMX_CONFIG(p)                                                                                                  \
    do {                                                                                                               \
        SEEN(p);                                                                                                       \
        _tile_loadconfig(p);                                                                                           \
    } while (0)
#define AMX_RELEASE() _tile_release()
#define AMX_ZERO(t)   _tile_zero(t)
#define AMX_LOAD(t, p, stride)                                                                                         \
    do {                                                                                                               \
        SEEN(p);                                                                                                       \
        _tile_loadd(t, p, stride);                                                                                     \
        SEEN(p);                                                                                                       \
    } while (0)
#define AMX_STORE(t, p, stride) _tile_stored(t, p, stride)
#define AMX_DOT_SU(c, a, b)     _tile_dpbsud(c, a, b)
#define AMX_DOT_BF16(c, a, b)   _tile_dpbf16ps(c, a, b)
#define AMX_FEW_Q8              fa_kern_linear_q8_avx512vnni

#include "backend/cpu/kern_body_amx.h"

void fa_kern_linear_init_amx(fa_kernels *k) { k->linear_bf16 = amx_linear_bf16; }

void fa_kern_linear_init_amxint8(fa_kernels *k) { k->linear_q8 = amx_linear_q8; }
