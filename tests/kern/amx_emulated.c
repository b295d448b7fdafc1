/* The kernels of src/backend/cpu/kern_body_amx.h over tiles in C: eight registers of 16 rows of 64 bytes, with the
 * semantics of Intel's manual (Software Developer's Manual, volume 2: LDTILECFG, TILELOADD, TILESTORED, TILEZERO,
 * TDPBSUD, TDPBF16PS). What an instruction refuses with #UD or #GP ends the test. */
#include "kern/amx_emulated.h"

#if defined(__AVX512VNNI__)
#include "backend/cpu/kern_inline.h"
#include "backend/cpu/kern_simd.h"
#include "backend/cpu/kern_x86_avx512_pairs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct tile {
    uint8_t row[16][64];
} tile;

static struct {
    tile t[8];
    uint16_t colsb[8];
    uint8_t rows[8];
    bool configured;
} state;

#define REFUSE_IF(bad)                                                                                                 \
    do {                                                                                                               \
        if (bad) {                                                                                                     \
            fprintf(stderr, "emulated tiles, line %d: %s\n", __LINE__, #bad);                                          \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static void usable(int t) { REFUSE_IF(!state.configured || t < 0 || t > 7 || !state.rows[t] || !state.colsb[t]); }

/* A config is 64 bytes: palette, start row, 14 zeros, bytes per row of 16 tiles, rows of 16 tiles; palette 1 has 8. */
static void load_config(const void *config) {
    uint8_t c[64];
    memcpy(c, config, sizeof c);
    memset(&state, 0, sizeof state);
    REFUSE_IF(c[0] != 1 || c[1] != 0);
    for (int i = 2; i < 16; i++) REFUSE_IF(c[i] != 0);
    for (int t = 0; t < 16; t++) {
        const int colsb = c[16 + 2 * t] | c[17 + 2 * t] << 8, rows = c[48 + t];
        REFUSE_IF(colsb > 64 || rows > 16 || (colsb == 0) != (rows == 0));
        REFUSE_IF(t >= 8 && rows);
        if (t < 8) state.colsb[t] = (uint16_t)colsb, state.rows[t] = (uint8_t)rows;
    }
    state.configured = true;
}

static void release(void) { memset(&state, 0, sizeof state); }

static void zero(int t) {
    usable(t);
    memset(&state.t[t], 0, sizeof state.t[t]);
}

static void load(int t, const void *p, int64_t stride) {
    zero(t);
    for (int r = 0; r < state.rows[t]; r++) memcpy(state.t[t].row[r], (const char *)p + r * stride, state.colsb[t]);
}

static void store(int t, void *p, int64_t stride) {
    usable(t);
    for (int r = 0; r < state.rows[t]; r++) memcpy((char *)p + r * stride, state.t[t].row[r], state.colsb[t]);
}

/* Shapes of c += a x b; all three are different registers. */
static void check_dot(int c, int a, int b) {
    usable(c), usable(a), usable(b);
    REFUSE_IF(c == a || c == b || a == b);
    REFUSE_IF(state.rows[c] != state.rows[a] || state.colsb[c] != state.colsb[b]);
    REFUSE_IF(state.colsb[a] % 4 || state.colsb[c] % 4 || state.colsb[a] / 4 != state.rows[b]);
}

static void clear_below(int t) { memset(state.t[t].row[state.rows[t]], 0, (size_t)(16 - state.rows[t]) * 64); }

static void dot_su(int c, int a, int b) {
    check_dot(c, a, b);
    for (int m = 0; m < state.rows[c]; m++)
        for (int k = 0; k < state.colsb[a] / 4; k++)
            for (int n = 0; n < state.colsb[c] / 4; n++) {
                int32_t sum;
                memcpy(&sum, state.t[c].row[m] + 4 * n, 4);
                for (int i = 0; i < 4; i++)
                    sum += (int8_t)state.t[a].row[m][4 * k + i] * (int32_t)state.t[b].row[k][4 * n + i];
                memcpy(state.t[c].row[m] + 4 * n, &sum, 4);
            }
    if (state.rows[c] < 16) clear_below(c);
}

/* Subnormal numbers count as zero, in and out. */
static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

static float bf16_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return flushed(fa_bf16_to_f32(h));
}

/* Even and odd columns are summed apart, each in one chain of fma, then added to each other and to c. */
static void dot_bf16(int c, int a, int b) {
    check_dot(c, a, b);
    for (int m = 0; m < state.rows[c]; m++)
        for (int n = 0; n < state.colsb[c] / 4; n++) {
            float even = 0, odd = 0, sum;
            for (int k = 0; k < state.colsb[a] / 4; k++) {
                const uint8_t *x = state.t[a].row[m] + 4 * k, *w = state.t[b].row[k] + 4 * n;
                even = flushed(fmaf(bf16_at(x), bf16_at(w), even));
                odd = flushed(fmaf(bf16_at(x + 2), bf16_at(w + 2), odd));
            }
            memcpy(&sum, state.t[c].row[m] + 4 * n, 4);
            sum = flushed(flushed(sum) + flushed(even + odd));
            memcpy(state.t[c].row[m] + 4 * n, &sum, 4);
        }
    if (state.rows[c] < 16) clear_below(c);
}

#define AMX_CONFIG(p)           load_config(p)
#define AMX_RELEASE()           release()
#define AMX_ZERO(t)             zero(t)
#define AMX_LOAD(t, p, stride)  load(t, p, stride)
#define AMX_STORE(t, p, stride) store(t, p, stride)
#define AMX_DOT_SU(c, a, b)     dot_su(c, a, b)
#define AMX_DOT_BF16(c, a, b)   dot_bf16(c, a, b)
#define AMX_FEW_Q8              fa_kern_linear_q8_avx512vnni

#include "backend/cpu/kern_body_amx.h"

bool amx_emulated_init(fa_kernels *k) {
    if (fa_kernels_init(k, "avx512vnni", NULL)) return false;
    k->linear_q8 = amx_linear_q8;
    k->linear_bf16 = amx_linear_bf16;
    k->isa = "amx (emulated)";
    return true;
}

bool amx_emulated_at_rest(void) { return !state.configured; }

#else /* built for another machine */

bool amx_emulated_init(fa_kernels *k) {
    (void)k;
    return false;
}
bool amx_emulated_at_rest(void) { return true; }

#endif
