/* Character classes: general category, white space, word characters. The table is written by tools/make_ucd_tables.py
 * (Unicode 16). */
#ifndef FA_TEXT_UCD_H
#define FA_TEXT_UCD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* General categories, the low 5 bits of an entry. */
enum {
    FA_GC_CN,
    FA_GC_LU,
    FA_GC_LL,
    FA_GC_LT,
    FA_GC_LM,
    FA_GC_LO,
    FA_GC_MN,
    FA_GC_MC,
    FA_GC_ME,
    FA_GC_ND,
    FA_GC_NL,
    FA_GC_NO,
    FA_GC_PC,
    FA_GC_PD,
    FA_GC_PS,
    FA_GC_PE,
    FA_GC_PI,
    FA_GC_PF,
    FA_GC_PO,
    FA_GC_SM,
    FA_GC_SC,
    FA_GC_SK,
    FA_GC_SO,
    FA_GC_ZS,
    FA_GC_ZL,
    FA_GC_ZP,
    FA_GC_CC,
    FA_GC_CF,
    FA_GC_CO
};

enum {
    FA_UCD_GC = 0x1F,
    FA_UCD_SPACE = 0x20,    /* \s */
    FA_UCD_UNSTABLE = 0x40, /* normalization to NFC may change it or join it to the character before */
    FA_UCD_WORD = 0x80      /* \w of the Whitespace pre-tokenizer and of single_word */
};

extern const uint8_t fa_ucd_block[0x1100];
extern const uint8_t fa_ucd_data[];
extern const uint32_t fa_ucd_ascii[128]; /* fa_ucd_set() of ASCII */

/* Classes of parts of the reference that bring tables of their own, of other Unicode versions: bits of
 * fa_ucd_more(). */
enum {
    FA_MORE_PUNCT = 1,    /* Punctuation and BertPreTokenizer cut around it */
    FA_MORE_NUMERIC = 2,  /* Digits does */
    FA_MORE_DROPPED = 4,  /* BertNormalizer's clean_text drops it */
    FA_MORE_MARK = 8,     /* BertNormalizer's strip_accents drops it */
    FA_MORE_ACCENT = 16,  /* StripAccents drops it */
    FA_MORE_CHINESE = 32, /* BertNormalizer's handle_chinese_chars puts spaces around it */
    FA_MORE_SPACE = 64    /* BertNormalizer's clean_text makes it a space */
};
extern const uint8_t fa_ucd_more_block[0x1100];
extern const uint8_t fa_ucd_more_data[];

static inline unsigned fa_ucd_more(uint32_t cp) {
    return cp < 0x110000 ? fa_ucd_more_data[fa_ucd_more_block[cp >> 8] * 256u + (cp & 255)] : 0;
}

/* Scripts as the UnicodeScripts pre-tokenizer sees them: numbers without names, FA_SCRIPT_ANY for what has none. */
enum { FA_SCRIPT_ANY };
extern const uint8_t fa_ucd_script_block[0x1100];
extern const uint8_t fa_ucd_script_data[];

static inline unsigned fa_ucd_script(uint32_t cp) {
    return cp < 0x110000 ? fa_ucd_script_data[fa_ucd_script_block[cp >> 8] * 256u + (cp & 255)] : FA_SCRIPT_ANY;
}

/* Lower case of characters for which libutf8proc says something else: {upper, lower}, sorted. */
extern const uint32_t fa_ucd_lower[][2];
extern const size_t fa_ucd_n_lower;

/* What the reference's regex engine knows and PCRE2 10.42 (Unicode 14) does not: {first, last, general category}; and
 * the Han characters among them. */
extern const uint32_t fa_ucd_young[][3];
extern const size_t fa_ucd_n_young;
extern const uint32_t fa_ucd_young_han[][3];
extern const size_t fa_ucd_n_young_han;

/* Ranges, first and last, of code points that the normalizers of the reference do not know yet: they leave them as they
 * are. */
extern const uint32_t fa_ucd_newer[][2];
extern const size_t fa_ucd_n_newer;

static inline unsigned fa_ucd(uint32_t cp) {
    return cp < 0x110000 ? fa_ucd_data[fa_ucd_block[cp >> 8] * 256u + (cp & 255)] : 0;
}

/* Classes as sets: bit g of a set is category g, bit 31 is white space (which is not a category). */
#define FA_GC_BIT(g) (UINT32_C(1) << (g))
#define FA_SET_SPACE (UINT32_C(1) << 31)
#define FA_SET_L                                                                                                       \
    (FA_GC_BIT(FA_GC_LU) | FA_GC_BIT(FA_GC_LL) | FA_GC_BIT(FA_GC_LT) | FA_GC_BIT(FA_GC_LM) | FA_GC_BIT(FA_GC_LO))
#define FA_SET_M (FA_GC_BIT(FA_GC_MN) | FA_GC_BIT(FA_GC_MC) | FA_GC_BIT(FA_GC_ME))
#define FA_SET_N (FA_GC_BIT(FA_GC_ND) | FA_GC_BIT(FA_GC_NL) | FA_GC_BIT(FA_GC_NO))
#define FA_SET_P (UINT32_C(0x7F) << FA_GC_PC)
#define FA_SET_S (UINT32_C(0xF) << FA_GC_SM)

/* The set of one code point: its category's bit, and FA_SET_SPACE. */
static inline uint32_t fa_ucd_set(uint32_t cp) {
    unsigned u = fa_ucd(cp);
    return FA_GC_BIT(u & FA_UCD_GC) | (uint32_t)(u & FA_UCD_SPACE) << 26;
}

#endif
