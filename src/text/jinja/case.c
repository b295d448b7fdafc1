/* Upper, lower and title case as Python's str methods have them: full mappings, the final sigma. */
#include "base/utf8.h"
#include "text/jinja/case_tab.h"
#include "text/jinja/int.h"
#include "text/ucd.h"

#include <string.h>
#include <utf8proc.h>

bool fa_jj_is_upper(uint32_t cp) {
    if (cp < 128) return cp >= 'A' && cp <= 'Z';
    return utf8proc_isupper((utf8proc_int32_t)cp);
}

bool fa_jj_is_lower(uint32_t cp) {
    if (cp < 128) return cp >= 'a' && cp <= 'z';
    return utf8proc_islower((utf8proc_int32_t)cp) || cp == 0xAA || cp == 0xBA;
}

static bool cased(uint32_t cp) {
    return fa_jj_is_upper(cp) || fa_jj_is_lower(cp) || (fa_ucd(cp) & FA_UCD_GC) == FA_GC_LT;
}

static bool ignorable(uint32_t cp) {
    unsigned g = fa_ucd(cp) & FA_UCD_GC;
    return g == FA_GC_MN || g == FA_GC_ME || g == FA_GC_CF || g == FA_GC_LM || g == FA_GC_SK || cp == '\'' ||
           cp == '.' || cp == ':' || cp == 0xB7 || cp == 0x2018 || cp == 0x2019 || cp == 0x2024 || cp == 0x2027;
}

/* A capital sigma at `at` ends a word: a cased letter before it, none behind. */
static bool final_sigma(const fa_jjstr *s, size_t at) {
    uint32_t cp = 0;
    size_t i = at;
    bool before = false;
    while (i > 0) {
        do i--;
        while (i > 0 && ((unsigned char)s->p[i] & 0xC0) == 0x80);
        fa_utf8_decode(s->p + i, s->n - i, &cp);
        if (ignorable(cp)) continue;
        before = cased(cp);
        break;
    }
    if (!before) return false;
    for (i = at + 2; i < s->n;) {
        i += (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
        if (!ignorable(cp)) return !cased(cp);
    }
    return true;
}

static const fa_jjcase *special(const fa_jjcase *t, size_t n, uint32_t cp) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t[mid].cp < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && t[lo].cp == cp ? &t[lo] : NULL;
}

static void put(fa_jj *m, uint32_t cp) {
    char buf[4];
    fa_jj_puts(m, &m->out, buf, (size_t)fa_utf8_encode(cp, buf));
}

/* One character in upper ('u'), title ('t') or lower ('l') case. */
static void put_case(fa_jj *m, const fa_jjstr *s, size_t at, uint32_t cp, int how) {
    if (cp < 128) {
        bool lower = cp >= 'a' && cp <= 'z', upper = cp >= 'A' && cp <= 'Z';
        char c = (char)((how == 'l' ? upper : lower) ? cp ^ 0x20 : cp);
        fa_jj_puts(m, &m->out, &c, 1);
        return;
    }
    if (how == 'l') {
        if (cp == 0x130) put(m, 'i');
        put(m, cp == 0x130                         ? 0x307
               : cp == 0x3A3 && final_sigma(s, at) ? 0x3C2
                                                   : (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
        return;
    }
    const fa_jjcase *c = how == 'u' ? special(fa_jj_upper_case, fa_jj_n_upper_case, cp)
                                    : special(fa_jj_title_case, fa_jj_n_title_case, cp);
    for (int i = 0; c && i < 3 && c->to[i]; i++) put(m, c->to[i]);
    if (!c)
        put(m,
            (uint32_t)(how == 'u' ? utf8proc_toupper((utf8proc_int32_t)cp) : utf8proc_totitle((utf8proc_int32_t)cp)));
}

fa_jjstr *fa_jj_case(fa_jj *m, fa_jjstr *s, int how) {
    size_t mark = m->out.len;
    bool in_word = false, first = true;
    fa_jj_step(m, s->n / 8);
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        size_t len = (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
        int to = how;
        if (how == 't') to = in_word ? 'l' : 't';
        if (how == 'c') to = first ? 't' : 'l';
        if (how == 's') to = fa_jj_is_upper(cp) ? 'l' : 'u';
        if (how == 'f') to = 'l';
        if (how == 't') in_word = cased(cp);
        if (how == 'f' && cp == 0xDF)
            fa_jj_puts(m, &m->out, "ss", 2);
        else
            put_case(m, s, i, cp, to);
        first = false;
        i += len;
    }
    fa_jjstr *r = fa_jj_take(m, mark);
    r->markup = s->markup;
    return r;
}
