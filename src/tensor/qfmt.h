/* Weight storage formats as rows of one table. Nothing else in the engine knows bit widths or block layouts.
 *
 * A weight is a matrix [rows, cols] whose rows are stored one after the other. Float formats have `to_f32`. Quantized
 * formats have `unpack`, the plain-C definition of the format in its *canonical form*: per value an unsigned code, per
 * group of `ugroup` (16 or 32) values along the row a float scale and a float min, so that
 *
 *     value[k] = codes[k] * scale[k / ugroup] + min[k / ugroup]            (codes 0..255)
 *
 * Signed formats are shifted to unsigned codes with min = -offset * scale. Every kernel is written against the
 * canonical form or tested against it. Bytes that are floats themselves (E4M3: mxfp8, fp8) have no such form: these
 * formats have scales but go the way of floats. */
#ifndef FA_TENSOR_QFMT_H
#define FA_TENSOR_QFMT_H

#include "base/err.h"
#include "tensor/dtype.h"

/* X(id, name): name is what users see. GGUF types that are only recognised (not computed) have no row; io/gguf.h names
 * them. */
#define FA_FMTS(X)                                                                                                     \
    X(F32, "f32")                                                                                                      \
    X(F16, "f16")                                                                                                      \
    X(BF16, "bf16")                                                                                                    \
    X(AFFINE, "affine")                                                                                                \
    X(MXFP4, "mxfp4")                                                                                                  \
    X(NVFP4, "nvfp4")                                                                                                  \
    X(MXFP8, "mxfp8")                                                                                                  \
    X(FP8, "fp8")                                                                                                      \
    X(Q4_0, "q4_0")                                                                                                    \
    X(Q4_1, "q4_1")                                                                                                    \
    X(Q5_0, "q5_0")                                                                                                    \
    X(Q5_1, "q5_1")                                                                                                    \
    X(Q8_0, "q8_0")                                                                                                    \
    X(Q2_K, "q2_k")                                                                                                    \
    X(Q3_K, "q3_k")                                                                                                    \
    X(Q4_K, "q4_k")                                                                                                    \
    X(Q5_K, "q5_k")                                                                                                    \
    X(Q6_K, "q6_k")                                                                                                    \
    X(IQ1_S, "iq1_s")                                                                                                  \
    X(IQ1_M, "iq1_m")                                                                                                  \
    X(IQ2_XXS, "iq2_xxs")                                                                                              \
    X(IQ2_XS, "iq2_xs")                                                                                                \
    X(IQ2_S, "iq2_s")                                                                                                  \
    X(IQ3_XXS, "iq3_xxs")                                                                                              \
    X(IQ3_S, "iq3_s")                                                                                                  \
    X(IQ4_NL, "iq4_nl")                                                                                                \
    X(IQ4_XS, "iq4_xs")                                                                                                \
    X(TQ1_0, "tq1_0")                                                                                                  \
    X(TQ2_0, "tq2_0")                                                                                                  \
    X(MXFP4_B, "mxfp4_b")                                                                                              \
    X(NVFP4_B, "nvfp4_b")

typedef enum fa_fmt {
#define FA_X(id, name) FA_FMT_##id,
    FA_FMTS(FA_X)
#undef FA_X
        FA_FMT_COUNT
} fa_fmt;

/* A bound weight matrix: a view into a mapped file (or a private copy); owns nothing. Data may start at any byte. */
typedef struct fa_weight {
    int64_t rows, cols;
    const uint8_t *codes;  /* row r starts at codes + r * row_bytes */
    const uint8_t *scales; /* planar formats (affine .. fp8): [rows, cols / group], row stride scale_row_bytes; NULL for
                              formats with scales inside blocks */
    const uint8_t *biases; /* affine only, same layout as scales */
    size_t row_bytes, scale_row_bytes;
    const char *name;    /* tensor name for messages, borrowed from the checkpoint */
    uint8_t fmt;         /* fa_fmt */
    uint8_t bits;        /* affine: 2 3 4 5 6 8; mxfp4, nvfp4: 4; mxfp8, fp8: 8; else 0 */
    uint8_t scale_dtype; /* affine: FA_F32 FA_F16 FA_BF16; mxfp4, mxfp8: FA_U8 (E8M0); nvfp4: FA_F8_E4M3 or FA_F32; fp8:
                            FA_F32 */
    uint16_t group;      /* affine: 32 64 128; mxfp4, mxfp8: 32; nvfp4: 16; fp8: 32 64 128, of which the last may be cut
                            short, or 0: a scale for the whole row; else 0 */
    uint32_t id;         /* number among the model's matrices that adapters can change, from 1 on; 0: none of them */
} fa_weight;

typedef struct fa_qfmt {
    const char *name;
    uint16_t block;       /* values per storage block; cols must be a multiple (affine: w->group; floats, fp8: 1) */
    uint16_t block_bytes; /* GGUF blocks and floats: bytes per block in the codes plane; affine and 4-bit planar ones: 0
                             (see fa_qfmt_row_bytes) */
    uint8_t ugroup;       /* canonical group, 16 or 32; 0 for float formats */
    /* One whole row in canonical form: codes [cols], scale and min [cols / ugroup]. NULL for float formats. */
    void (*unpack)(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min);
    /* Values [k0, k0 + n) of one row. NULL for quantized formats. */
    void (*to_f32)(const fa_weight *w, int64_t row, int64_t k0, int64_t n, float *out);
    /* Encodes one row of cols floats as stored bytes (convert, tests); planes that the format lacks are NULL. NULL when
     * not available. */
    void (*quant_row)(const fa_weight *shape, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases);
} fa_qfmt;

extern const fa_qfmt fa_qfmts[FA_FMT_COUNT];

/* Planar: codes in one plane, scales in another. */
static inline bool fa_fmt_planar(int fmt) { return fmt >= FA_FMT_AFFINE && fmt <= FA_FMT_FP8; }
/* Floats as they are, without scales. */
static inline bool fa_fmt_plain(int fmt) { return fmt <= FA_FMT_BF16; }
/* Scales of a row in their plane. */
static inline int64_t fa_weight_scales(const fa_weight *w) {
    return !fa_fmt_planar(w->fmt) ? 0 : w->group ? (w->cols + w->group - 1) / w->group : 1;
}

/* Bytes of one row in the codes plane. bits and group matter for affine and mxfp4. */
size_t fa_qfmt_row_bytes(fa_fmt fmt, int bits, int64_t cols);
/* Are (fmt, bits, group, cols) a combination that exists? Fills err with the reason, naming w->name. */
int fa_weight_check(const fa_weight *w, fa_error *err);
/* The definition of every weight: one row as floats, via to_f32 or unpack. scratch: cols bytes + 2 * cols / 16 floats,
 * may be NULL for float formats; fa_dequant_scratch gives its size. */
void fa_dequant_row(const fa_weight *w, int64_t row, float *out, void *scratch);
size_t fa_dequant_scratch(int64_t cols);
/* Affine with the least error of h[k] * (x[k] - value[k])^2 over the row (affine_fit.c); h > 0. Returns that sum; codes
 * NULL: only that. */
double fa_quant_affine_fit(const fa_weight *shape, const float *x, const float *h, uint8_t *codes, uint8_t *scales,
                           uint8_t *biases);
/* "bf16", "q4_k", "affine 4-bit g64": for people. */
const char *fa_weight_fmt_text(const fa_weight *w, char buf[32]);

#endif
