/* Patterns in Oniguruma's syntax, written in PCRE2's. What differs: classes nest and intersect ([a[bc]], [a&&[^b]]),
 * \w, \s, \h, \b and the POSIX classes mean other sets, (?m) is "dot matches a newline", {n}? and {n,m}+ are
 * quantifiers of quantifiers. General categories get the code points that are younger than PCRE2's table. What is no
 * valid pattern is passed on for PCRE2 to refuse. */
#include "text/tok_int.h"
#include "text/ucd.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 100 }; /* of groups and classes; deeper ones are passed on as they are */

typedef struct reader {
    const char *p, *end;
    int depth;
} reader;

static const char SPACE[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
                            "\\x{205f}\\x{3000}";

/* \w by itself, outside of a class, has these too: from the engine's table of the first 256 code points. */
#define WORD_TOO "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define ALPHA                                                                                                          \
    "\\p{Alphabetic}\\x{363}-\\x{36f}\\x{897}\\x{c04}\\x{cf3}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{10d69}"            \
    "\\x{10efc}\\x{11080}\\x{11081}\\x{11241}\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}"           \
    "\\x{113cc}\\x{113cd}\\x{11f00}\\x{11f01}\\x{11f03}\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f40}"                     \
    "\\x{1611e}-\\x{1612e}\\x{1e08f}"
#define LOWER    "\\p{Lowercase}\\x{10fc}\\x{a7f2}-\\x{a7f4}\\x{ab69}\\x{1e030}-\\x{1e06d}"
#define ASSIGNED "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Z}"

/* ---- sets ---- */

/* Code points younger than PCRE2's table, of the categories of `mask`, as members of a class. */
static void put_young(fa_buf *b, uint32_t mask) {
    for (size_t i = 0; i < fa_ucd_n_young; i++)
        if (mask & FA_GC_BIT(fa_ucd_young[i][2]))
            fa_buf_printf(b, "\\x{%x}-\\x{%x}", (unsigned)fa_ucd_young[i][0], (unsigned)fa_ucd_young[i][1]);
}

static const uint32_t WORD_MASK = FA_SET_L | FA_SET_M | FA_GC_BIT(FA_GC_ND) | FA_GC_BIT(FA_GC_NL) | FA_GC_BIT(FA_GC_PC);
static const uint32_t ALPHA_MASK = FA_SET_L | FA_GC_BIT(FA_GC_NL);

static void put_word(fa_buf *b, bool in_class) {
    fa_buf_puts(b, in_class ? "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}" : "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}" WORD_TOO);
    put_young(b, WORD_MASK);
}

static void put_digit(fa_buf *b) {
    fa_buf_puts(b, "\\p{Nd}");
    put_young(b, FA_GC_BIT(FA_GC_ND));
}

typedef struct name {
    const char *name; /* lower case, without spaces, '-' and '_' */
    const char *set;  /* members of a class */
    uint32_t young;   /* categories; with NOT, which is no category, the set is the complement */
} name;

#define NOT UINT32_C(0x80000000)

#define GC(g)    FA_GC_BIT(FA_GC_##g)
#define FA_SET_Z (GC(ZS) | GC(ZL) | GC(ZP))
static const name names[] = {
    {"l", "\\p{L}", FA_SET_L},
    {"letter", "\\p{L}", FA_SET_L},
    {"lu", "\\p{Lu}", GC(LU)},
    {"uppercaseletter", "\\p{Lu}", GC(LU)},
    {"ll", "\\p{Ll}", GC(LL)},
    {"lowercaseletter", "\\p{Ll}", GC(LL)},
    {"lt", "\\p{Lt}", GC(LT)},
    {"titlecaseletter", "\\p{Lt}", GC(LT)},
    {"lc", "\\p{Lu}\\p{Ll}\\p{Lt}", GC(LU) | GC(LL) | GC(LT)},
    {"casedletter", "\\p{Lu}\\p{Ll}\\p{Lt}", GC(LU) | GC(LL) | GC(LT)},
    {"lm", "\\p{Lm}", GC(LM)},
    {"modifierletter", "\\p{Lm}", GC(LM)},
    {"lo", "\\p{Lo}", GC(LO)},
    {"otherletter", "\\p{Lo}", GC(LO)},
    {"m", "\\p{M}", FA_SET_M},
    {"mark", "\\p{M}", FA_SET_M},
    {"combiningmark", "\\p{M}", FA_SET_M},
    {"mn", "\\p{Mn}", GC(MN)},
    {"nonspacingmark", "\\p{Mn}", GC(MN)},
    {"mc", "\\p{Mc}", GC(MC)},
    {"spacingmark", "\\p{Mc}", GC(MC)},
    {"me", "\\p{Me}", GC(ME)},
    {"enclosingmark", "\\p{Me}", GC(ME)},
    {"n", "\\p{N}", FA_SET_N},
    {"number", "\\p{N}", FA_SET_N},
    {"nd", "\\p{Nd}", GC(ND)},
    {"decimalnumber", "\\p{Nd}", GC(ND)},
    {"digit", "\\p{Nd}", GC(ND)},
    {"nl", "\\p{Nl}", GC(NL)},
    {"letternumber", "\\p{Nl}", GC(NL)},
    {"no", "\\p{No}", GC(NO)},
    {"othernumber", "\\p{No}", GC(NO)},
    {"p", "\\p{P}", FA_SET_P},
    {"punctuation", "\\p{P}", FA_SET_P},
    {"pc", "\\p{Pc}", GC(PC)},
    {"connectorpunctuation", "\\p{Pc}", GC(PC)},
    {"pd", "\\p{Pd}", GC(PD)},
    {"dashpunctuation", "\\p{Pd}", GC(PD)},
    {"ps", "\\p{Ps}", GC(PS)},
    {"openpunctuation", "\\p{Ps}", GC(PS)},
    {"pe", "\\p{Pe}", GC(PE)},
    {"closepunctuation", "\\p{Pe}", GC(PE)},
    {"pi", "\\p{Pi}", GC(PI)},
    {"initialpunctuation", "\\p{Pi}", GC(PI)},
    {"pf", "\\p{Pf}", GC(PF)},
    {"finalpunctuation", "\\p{Pf}", GC(PF)},
    {"po", "\\p{Po}", GC(PO)},
    {"otherpunctuation", "\\p{Po}", GC(PO)},
    {"s", "\\p{S}", FA_SET_S},
    {"symbol", "\\p{S}", FA_SET_S},
    {"sm", "\\p{Sm}", GC(SM)},
    {"mathsymbol", "\\p{Sm}", GC(SM)},
    {"sc", "\\p{Sc}", GC(SC)},
    {"currencysymbol", "\\p{Sc}", GC(SC)},
    {"sk", "\\p{Sk}", GC(SK)},
    {"modifiersymbol", "\\p{Sk}", GC(SK)},
    {"so", "\\p{So}", GC(SO)},
    {"othersymbol", "\\p{So}", GC(SO)},
    {"z", "\\p{Z}", FA_SET_Z},
    {"separator", "\\p{Z}", FA_SET_Z},
    {"zs", "\\p{Zs}", GC(ZS)},
    {"spaceseparator", "\\p{Zs}", GC(ZS)},
    {"zl", "\\p{Zl}", 0},
    {"zp", "\\p{Zp}", 0},
    {"cc", "\\p{Cc}", 0},
    {"control", "\\p{Cc}", 0},
    {"cntrl", "\\p{Cc}", 0},
    {"cf", "\\p{Cf}", GC(CF)},
    {"format", "\\p{Cf}", GC(CF)},
    {"co", "\\p{Co}", 0},
    {"privateuse", "\\p{Co}", 0},
    {"any", "\\x{0}-\\x{10ffff}", 0},
    {"ascii", "\\x{0}-\\x{7f}", 0},
    {"c", ASSIGNED, (FA_SET_L | FA_SET_M | FA_SET_N | FA_SET_P | FA_SET_S) | NOT},
    {"other", ASSIGNED, (FA_SET_L | FA_SET_M | FA_SET_N | FA_SET_P | FA_SET_S) | NOT},
    {"cn", ASSIGNED "\\p{Cc}\\p{Cf}\\p{Co}", ~GC(CN)},
    {"unassigned", ASSIGNED "\\p{Cc}\\p{Cf}\\p{Co}", ~GC(CN)},
    {"assigned", ASSIGNED "\\p{Cc}\\p{Cf}\\p{Co}", ~(GC(CN) | NOT)},
    {"alpha", ALPHA, ALPHA_MASK},
    {"alphabetic", ALPHA, ALPHA_MASK},
    {"alnum", ALPHA "\\p{Nd}", ALPHA_MASK | GC(ND)},
    {"upper", "\\p{Uppercase}", GC(LU)},
    {"uppercase", "\\p{Uppercase}", GC(LU)},
    {"lower", LOWER, GC(LL)},
    {"lowercase", LOWER, GC(LL)},
    {"punct", "\\p{P}", FA_SET_P},
    {"space", SPACE, 0},
    {"whitespace", SPACE, 0},
    {"blank", "\\p{Zs}\\x{9}", 0},
    {"xdigit", "0-9A-Fa-f", 0},
    {"word", "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}", WORD_MASK},
    {"graph", "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}", ~(GC(CN) | GC(CC) | FA_SET_Z | NOT)},
    {"print", "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}\\p{Zs}", ~(GC(CN) | GC(CC) | GC(ZL) | GC(ZP) | NOT)},
};

/* Properties that are no scripts: PCRE2 knows them by the same names. */
static bool is_property(const char *flat) {
    static const char *const list[] = {"dash",
                                       "diacritic",
                                       "emoji",
                                       "emojicomponent",
                                       "emojimodifier",
                                       "emojimodifierbase",
                                       "emojipresentation",
                                       "extendedpictographic",
                                       "extender",
                                       "hexdigit",
                                       "idcontinue",
                                       "ideographic",
                                       "idstart",
                                       "math",
                                       "quotationmark",
                                       "regionalindicator",
                                       "sentenceterminal",
                                       "softdotted",
                                       "terminalpunctuation",
                                       "unifiedideograph",
                                       "cased",
                                       "caseignorable",
                                       "bidicontrol",
                                       "bidimirrored",
                                       "defaultignorablecodepoint",
                                       "graphemebase",
                                       "graphemeextend",
                                       "joincontrol",
                                       "logicalorderexception",
                                       "noncharactercodepoint",
                                       "patternsyntax",
                                       "patternwhitespace",
                                       "variationselector",
                                       "xidstart",
                                       "xidcontinue",
                                       "asciihexdigit",
                                       "radical"};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (strcmp(flat, list[i]) == 0) return true;
    return false;
}

/* The set of that name into b: 1, or -1 for its complement; 0: no name. */
static int put_named(fa_buf *b, const char *s, size_t n, bool posix) {
    char flat[32];
    size_t k = 0;
    for (size_t i = 0; i < n && k < sizeof flat - 1; i++) {
        if (s[i] == ' ' || s[i] == '-' || s[i] == '_') continue;
        flat[k++] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] + 32) : s[i];
    }
    flat[k] = 0;
    if (strcmp(flat, "han") == 0) {
        fa_buf_puts(b, "\\p{sc:Han}");
        for (size_t i = 0; i < fa_ucd_n_young_han; i++)
            fa_buf_printf(b, "\\x{%x}-\\x{%x}", (unsigned)fa_ucd_young_han[i][0], (unsigned)fa_ucd_young_han[i][1]);
        return 1;
    }
    if (posix && strcmp(flat, "punct") == 0) { /* the class has symbols, the property has not */
        fa_buf_puts(b, "\\p{S}");
        put_young(b, FA_SET_S);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(flat, names[i].name) != 0) continue;
        fa_buf_puts(b, names[i].set);
        put_young(b, names[i].young & ~NOT);
        return names[i].young & NOT ? -1 : 1;
    }
    if (!posix) fa_buf_printf(b, is_property(flat) ? "\\p{%.*s}" : "\\p{sc:%.*s}", (int)n, s);
    return !posix;
}

/* ---- escapes ---- */

/* An escape that stands for a set: 1 and its members in b, -1 for the members' complement, 0 for another escape. r->p
 * is behind it (unmoved for 0). */
static int read_set(reader *r, fa_buf *b, bool in_class) {
    const char *p = r->p + 1; /* behind the backslash */
    bool minus = false;
    if (p == r->end) return 0;
    switch (*p) {
    case 's': fa_buf_puts(b, SPACE); break;
    case 'S': fa_buf_puts(b, SPACE), minus = true; break;
    case 'w': put_word(b, in_class); break;
    case 'W': put_word(b, in_class), minus = true; break;
    case 'd': put_digit(b); break;
    case 'D': put_digit(b), minus = true; break;
    case 'h': fa_buf_puts(b, "0-9a-fA-F"); break;
    case 'H': fa_buf_puts(b, "0-9a-fA-F"), minus = true; break;
    case 'p':
    case 'P': {
        const char *close = p + 1 < r->end && p[1] == '{' ? memchr(p, '}', (size_t)(r->end - p)) : NULL;
        if (!close) return 0;
        const char *s = p + 2;
        minus = *p == 'P';
        if (*s == '^') {
            minus = !minus;
            s++;
        }
        if (put_named(b, s, (size_t)(close - s), false) < 0) minus = !minus;
        p = close;
        break;
    }
    default: return 0;
    }
    r->p = p + 1;
    return minus ? -1 : 1;
}

static void put_literal(fa_buf *b, const char *c, size_t n) {
    if (n == 1 && strchr("\\^$.[]|()?*+{}-&#", *c) && *c) fa_buf_add(b, "\\", 1);
    fa_buf_add(b, c, n);
}

static size_t char_len(const char *p, const char *end) {
    size_t n = 1;
    while (p + n < end && ((unsigned char)p[n] & 0xC0) == 0x80) n++;
    return n;
}

/* Length of the escape at p, behind its backslash: with the digits, {} or <> that belong to it. */
static size_t escape_len(const char *p, const char *end) {
    const char *q = p + 1;
    char close = q < end && *q == '{' && strchr("xpPo", *p) ? '}' : q < end && *q == '<' && strchr("kg", *p) ? '>' : 0;
    if (close) {
        const char *to = memchr(q, close, (size_t)(end - q));
        return to ? (size_t)(to + 1 - p) : 1;
    }
    bool hex = *p == 'x';
    if (!hex && !(*p >= '0' && *p <= '9')) return 1;
    while (q < end && q - p < 3 && ((*q >= '0' && *q <= '9') || (hex && strchr("abcdefABCDEF", *q) && *q))) q++;
    return (size_t)(q - p);
}

/* An escape that is one character, or means in PCRE2 what it means here. */
static void read_escape(reader *r, fa_buf *b, bool in_class) {
    const char *p = r->p + 1;
    if (p == r->end) {
        fa_buf_add(b, "\\", 1);
        r->p = p;
        return;
    }
    size_t n = char_len(p, r->end);
    bool alnum = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');
    const char *same = in_class ? "xabefnrt01234567pPc" : "xaefnrt0123456789AzZGRXKNkgpPc";
    if (*p == 'v')
        fa_buf_puts(b, "\\x{b}");
    else if (*p == 'u' && r->end - p >= 5)
        fa_buf_printf(b, "\\x{%.4s}", p + 1), n = 5;
    else if (*p == 'O' && !in_class)
        fa_buf_puts(b, "(?s:.)");
    else if (alnum && strchr(same, *p))
        n = escape_len(p, r->end), fa_buf_add(b, r->p, n + 1);
    else
        put_literal(b, p, n);
    r->p = p + n;
}

/* ---- classes ---- */

static void read_class(reader *r, fa_buf *out);

/* [:name:] or [:^name:] at r->p, as read_set has it. */
static int read_posix(reader *r, fa_buf *b) {
    const char *p = r->p + 2, *close = p;
    bool minus = false;
    if (r->end - r->p < 5 || r->p[1] != ':') return 0;
    if (*p == '^') minus = true, p++;
    for (close = p; close + 1 < r->end && *close != ':';) {
        if (!((*close >= 'a' && *close <= 'z'))) return 0;
        close++;
    }
    if (close + 1 >= r->end || close[1] != ']' || !put_named(b, p, (size_t)(close - p), true)) return 0;
    r->p = close + 2;
    return minus ? -1 : 1;
}

static void put_other(fa_buf *others, const char *begin, const fa_buf *set) {
    fa_buf_puts(others, "|");
    fa_buf_puts(others, begin);
    fa_buf_add(others, set->data ? set->data : "", set->len);
    if (*begin) fa_buf_puts(others, "]");
}

/* One member, or a range: to `plain` what PCRE2 has in classes, the others as alternatives "|[...]" to `others`. */
static void read_member(reader *r, fa_buf *plain, fa_buf *others) {
    fa_buf set = {0};
    int kind = 0;
    if (*r->p == '\\') kind = read_set(r, &set, true);
    if (*r->p == '[' && !kind && r->depth) {
        kind = read_posix(r, &set);
        if (!kind) {
            read_class(r, &set);
            put_other(others, "", &set);
            fa_buf_free(&set);
            return;
        }
    }
    if (kind > 0) fa_buf_add(plain, set.data, set.len);
    if (kind < 0) put_other(others, "[^", &set);
    others->failed |= set.failed;
    fa_buf_free(&set);
    if (kind) return;
    for (int i = 0; i < 2 && r->p < r->end; i++) {
        size_t n = char_len(r->p, r->end);
        if (*r->p == '\\') {
            read_escape(r, plain, true);
        } else {
            put_literal(plain, r->p, n);
            r->p += n;
        }
        bool range = i == 0 && r->end - r->p >= 2 && *r->p == '-' && r->p[1] != ']' && r->p[1] != '[';
        if (range && r->p[1] == '\\' && r->p + 2 < r->end && strchr("sSwWdDhHpP", r->p[2])) range = false;
        if (!range) break;
        fa_buf_add(plain, "-", 1);
        r->p++;
    }
}

/* Members up to && or the end of the class, as a group or a class of PCRE2 that matches one character. `pure` tells
 * that it is one class, whose members are in `plain`. */
static bool read_union(reader *r, fa_buf *plain, fa_buf *out, bool first) {
    fa_buf others = {0};
    for (bool begin = first; r->p < r->end; begin = false) {
        if (*r->p == ']' && !begin) break;
        if (r->end - r->p >= 2 && r->p[0] == '&' && r->p[1] == '&') break;
        read_member(r, plain, &others);
    }
    bool pure = !others.len;
    if (plain->len && pure)
        fa_buf_printf(out, "[%s]", plain->data);
    else if (plain->len)
        fa_buf_printf(out, "(?:[%s]%s)", plain->data, others.data);
    else if (!pure)
        fa_buf_printf(out, "(?:%s)", others.data + 1);
    else
        fa_buf_puts(out, "(?!)");
    out->failed |= others.failed | plain->failed;
    fa_buf_free(&others);
    return pure && plain->len;
}

/* r->p is at '['; the class as an expression of PCRE2 that matches one character. */
static void read_class(reader *r, fa_buf *out) {
    fa_buf plain = {0}, one = {0}, all = {0};
    bool minus = false, pure = true;
    int parts = 0;
    r->p++;
    if (r->p < r->end && *r->p == '^') minus = true, r->p++;
    r->depth = r->depth < MAX_DEPTH && r->depth ? r->depth + 1 : 0;
    for (;;) {
        plain.len = one.len = 0;
        pure = read_union(r, &plain, &one, parts == 0);
        if (!(r->p < r->end && *r->p == '&')) break;
        r->p += 2;
        parts++;
        fa_buf_printf(&all, "(?=%s)", one.data ? one.data : "");
    }
    if (r->p < r->end) r->p++; /* ] */
    if (r->depth) r->depth--;
    const char *last = one.data ? one.data : "", *before = all.data ? all.data : "";
    if (!parts && minus && pure)
        fa_buf_printf(out, "[^%s]", plain.data);
    else if (minus)
        fa_buf_printf(out, "(?:(?!%s%s)(?s:.))", before, last);
    else if (parts)
        fa_buf_printf(out, "(?:%s%s)", before, last);
    else
        fa_buf_puts(out, last);
    out->failed |= plain.failed | one.failed | all.failed;
    fa_buf_free(&plain);
    fa_buf_free(&one);
    fa_buf_free(&all);
}

/* ---- the pattern ---- */

/* Puts (?: in front of what has been written from `at` on, and `)` behind it. */
static void wrap(fa_buf *b, size_t at) {
    fa_buf_puts(b, "(?:)");
    if (b->failed) return;
    memmove(b->data + at + 3, b->data + at, b->len - 4 - at);
    memcpy(b->data + at, "(?:", 3);
    b->data[b->len - 1] = ')';
}

/* The interval at r->p ("{2,3}"), if it is one: its length and whether it is {n}. */
static size_t interval(const reader *r, bool *fixed) {
    const char *p = r->p + 1;
    bool digits = false, comma = false;
    for (; p < r->end && *p != '}'; p++) {
        if (*p == ',' && !comma)
            comma = true;
        else if (*p >= '0' && *p <= '9')
            digits = true;
        else
            return 0;
    }
    *fixed = !comma;
    return p < r->end && digits ? (size_t)(p + 1 - r->p) : 0;
}

/* A quantifier at r->p over what was written from `atom` on. False: there is none. */
static bool read_quantifier(reader *r, fa_buf *b, size_t atom, bool again) {
    bool fixed = false, brace = *r->p == '{';
    size_t n = *r->p == '*' || *r->p == '+' || *r->p == '?' ? 1 : brace ? interval(r, &fixed) : 0;
    if (!n) return false;
    if (again) wrap(b, atom);
    if (brace && r->p[1] == ',') /* {,n} */
        fa_buf_printf(b, "{0%.*s", (int)n - 1, r->p + 1);
    else
        fa_buf_add(b, r->p, n);
    r->p += n;
    if (r->p < r->end && *r->p == '?' && !fixed) {
        fa_buf_add(b, r->p++, 1);
    } else if (r->p < r->end && *r->p == '+' && !brace) {
        fa_buf_add(b, r->p++, 1);
    }
    return true;
}

/* "(?" and what follows up to the body of the group; in options m is s, as dots go. */
static void read_group(reader *r, fa_buf *b) {
    const char *p = r->p + 1;
    fa_buf_add(b, "(", 1);
    if (p < r->end && *p == '?') {
        fa_buf_add(b, p++, 1);
        if (p < r->end && strchr("imxsWDSPy-", *p))
            for (; p < r->end && *p != ':' && *p != ')'; p++) fa_buf_add(b, *p == 'm' ? "s" : p, 1);
        else if (p < r->end && *p == '<' && p + 1 < r->end && p[1] != '=' && p[1] != '!')
            for (; p < r->end && *p != '>'; p++) fa_buf_add(b, p, 1);
        else if (p < r->end && *p == '<')
            fa_buf_add(b, p, 2), p += 2;
        if (p < r->end && strchr(":=!>#", *p) && *p) fa_buf_add(b, p++, 1);
    }
    r->p = p;
}

static void put_boundary(fa_buf *b, bool minus) {
    fa_buf w = {0};
    put_word(&w, false);
    fa_buf_printf(b, minus ? "(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))" : "(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))",
                  w.data ? w.data : "", w.data ? w.data : "", w.data ? w.data : "", w.data ? w.data : "");
    b->failed |= w.failed;
    fa_buf_free(&w);
}

static void read_atom(reader *r, fa_buf *b) {
    fa_buf set = {0};
    int kind = 0;
    if (*r->p == '\\') kind = read_set(r, &set, false);
    if (kind) {
        fa_buf_printf(b, kind > 0 ? "[%s]" : "[^%s]", set.data ? set.data : "");
        b->failed |= set.failed;
        fa_buf_free(&set);
    } else if (*r->p == '\\' && r->p + 1 < r->end && (r->p[1] == 'b' || r->p[1] == 'B')) {
        put_boundary(b, r->p[1] == 'B');
        r->p += 2;
    } else if (*r->p == '\\') {
        read_escape(r, b, false);
    } else if (*r->p == '[') {
        r->depth = 1;
        read_class(r, b);
    } else {
        size_t n = char_len(r->p, r->end);
        fa_buf_add(b, r->p, n);
        r->p += n;
    }
}

void fa_regex_translate(fa_buf *b, const char *pattern, size_t len) {
    reader r = {pattern, pattern + len, 0};
    size_t open[MAX_DEPTH], atom = 0;
    int depth = 0;
    bool can = false, again = false; /* a quantifier may follow; it would be the second one */
    while (r.p < r.end && !b->failed) {
        if (can && read_quantifier(&r, b, atom, again)) {
            again = true;
            continue;
        }
        again = false;
        can = true;
        if (*r.p == '(') {
            if (depth < MAX_DEPTH) open[depth] = b->len;
            depth++;
            read_group(&r, b);
            can = false;
        } else if (*r.p == ')') {
            can = depth > 0 && depth <= MAX_DEPTH; /* else no group is open, or its beginning was not kept */
            if (depth) depth--;
            atom = can ? open[depth] : b->len;
            fa_buf_add(b, r.p++, 1);
        } else {
            can = *r.p != '|' && *r.p != '^';
            atom = b->len;
            read_atom(&r, b);
        }
    }
}
