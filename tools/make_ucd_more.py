#!/usr/bin/env python3
"""Writes src/text/ucd_more.c: the character classes of those steps of HuggingFace `tokenizers` that bring Unicode tables of their own, which are of
other versions than the table of the regex engine. Each step is asked about each code point (needs the `tokenizers` package)."""
import sys
import unicodedata
from pathlib import Path

from tokenizers import Regex
from tokenizers import normalizers as nz
from tokenizers import pre_tokenizers as pt

CPS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
GC = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
PUNCT, NUMERIC, DROPPED, MARK, ACCENT, CHINESE, SPACE = (1 << i for i in range(7))


def two_level(tab):
    blocks, index = {}, []
    for i in range(0, 0x110000, 256):
        index.append(blocks.setdefault(bytes(tab[i : i + 256]), len(blocks)))
    assert len(blocks) <= 256
    return index, [b for block in blocks for b in block]




def classes():
    tab = bytearray(0x110000)
    punct, digits = pt.Punctuation(), pt.Digits()
    clean = nz.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    chinese = nz.BertNormalizer(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    marks = nz.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    accents = nz.StripAccents()
    for c in CPS:
        u = chr(c)
        # a contiguous run of the class is one piece: between letters a member stands alone
        tab[c] |= PUNCT * (len(punct.pre_tokenize_str("a" + u)) == 2)
        tab[c] |= NUMERIC * (len(digits.pre_tokenize_str("a" + u)) == 2)
        cleaned = clean.normalize_str("a" + u)
        tab[c] |= DROPPED * (cleaned == "a") | SPACE * (cleaned == "a ")
        tab[c] |= CHINESE * (chinese.normalize_str(u) == f" {u} ")
        tab[c] |= MARK * (marks.normalize_str("a" + u) == "a")
        tab[c] |= ACCENT * (accents.normalize_str("a" + u) == "a")
    return tab


def scripts():
    """Numbers the scripts: a run of code points without a cut has one script (or none), each run is compared with what is known."""
    step = pt.UnicodeScripts()
    tab = bytearray(0x110000)
    known = []  # a representative of each script

    def script(c):
        if not step.pre_tokenize_str(chr(c)):
            return 0
        for i, k in enumerate(known):
            if len(step.pre_tokenize_str(chr(k) + chr(c))) == 1:
                return i + 1
        known.append(c)
        return len(known)

    last = 0
    for c in CPS:
        if not step.pre_tokenize_str(chr(c)):
            continue
        if last and len(step.pre_tokenize_str(chr(known[last - 1]) + chr(c))) == 1:
            tab[c] = last
        else:
            tab[c] = last = script(c)
    assert len(known) < 256
    return tab


def lower_case():
    """All one-to-one lower-case pairs that this Python's older Unicode (14) does not know or has otherwise; libutf8proc knows the rest."""
    step = nz.Lowercase()
    for c in CPS:
        low = step.normalize_str(chr(c))
        if c != 0x130 and low != chr(c).lower():
            assert len(low) == 1
            yield c, ord(low)


def young():
    """Ranges of one general category each that the regex engine knows and Unicode 14 (this Python, and libpcre2 10.42) does not; and the Han ones."""
    cps = [c for c in CPS if unicodedata.category(chr(c)) == "Cn"]
    gc = {}
    for name in GC[1:]:
        keep = pt.Split(Regex(r"\p{%s}" % name), "removed", invert=True)
        for i in range(0, len(cps), 4096):
            for piece, _ in keep.pre_tokenize_str("".join(map(chr, cps[i : i + 4096]))):
                gc.update((ord(u), GC.index(name)) for u in piece)
    for values in (gc, {c: 0 for c in gc if pt.Split(Regex(r"\p{Han}"), "removed").pre_tokenize_str(chr(c)) == []}):
        ranges = []
        for c in sorted(values):
            if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == values[c]:
                ranges[-1][1] = c
            else:
                ranges.append([c, c, values[c]])
        yield ranges


def rows(values):
    return "\n".join("    " + ", ".join(map(str, values[i : i + 32])) + "," for i in range(0, len(values), 32))


def main():
    assert unicodedata.unidata_version == "14.0.0", "lower_case() counts on it"
    more, script, low = two_level(classes()), two_level(scripts()), list(lower_case()) or [(0x110000, 0x110000)]
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "src/text/ucd_more.c")
    text = '/* Character classes of single steps of the reference. Written by tools/make_ucd_more.py. */\n#include "text/ucd.h"\n\n/* clang-format off */\n'
    for name, (index, data) in (("more", more), ("script", script)):
        text += f"const uint8_t fa_ucd_{name}_block[0x1100] = {{\n{rows(index)}\n}};\n\nconst uint8_t fa_ucd_{name}_data[{len(data)}] = {{\n{rows(data)}\n}};\n\n"
    text += "const uint32_t fa_ucd_lower[][2] = {\n    " + ", ".join("{0x%X, 0x%X}" % p for p in low) + ",\n};\n"
    text += "const size_t fa_ucd_n_lower = sizeof fa_ucd_lower / sizeof *fa_ucd_lower;\n"
    for name, ranges in zip(("young", "young_han"), young()):
        text += f"\nconst uint32_t fa_ucd_{name}[][3] = {{\n    " + ", ".join("{0x%X, 0x%X, %d}" % tuple(r) for r in ranges) + ",\n};\n"
        text += f"const size_t fa_ucd_n_{name} = {len(ranges)};\n"
    out.write_text(text)


main()
