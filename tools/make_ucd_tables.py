#!/usr/bin/env python3
"""Writes src/text/ucd_tab.c: one byte per code point, as the regex engine of HuggingFace `tokenizers` classifies it.

Asking that engine itself (needs the `tokenizers` package) keeps our classes equal to the reference's Unicode version: pre-tokenizers must cut
where it cuts. Bits: 0-4 general category (index in GC), 5 white space, 6 "normalization may touch it", 7 word character
as the Whitespace pre-tokenizer and single_word see it (another engine)."""
import bisect
import sys
import unicodedata
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

GC = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
CPS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def members(cls):
    """The code points that the class matches: everything else is removed from a string of all of them."""
    keep = pre_tokenizers.Split(Regex(cls), "removed", invert=True)
    for i in range(0, len(CPS), 4096):
        for piece, _ in keep.pre_tokenize_str("".join(map(chr, CPS[i : i + 4096]))):
            yield from map(ord, piece)


def touched():
    """Code points that NFC may change or join to what stands before them; unassigned ones are taken as such."""
    second = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    for c in CPS:
        d = unicodedata.decomposition(chr(c))
        if d and not d.startswith("<"):
            second.update(int(x, 16) for x in d.split()[1:])
    for c in CPS:
        u = chr(c)
        if c in second or unicodedata.combining(u) or unicodedata.normalize("NFC", u) != u or unicodedata.category(u) == "Cn":
            yield c


# Characters of Unicode 15 (the table of libutf8proc 2.8) that have a combining class or a decomposition: this Python may not know them.
U15 = {0xECE, 0x11F41, 0x11F42, 0x1E08F, *range(0x10EFD, 0x10F00), *range(0x1E030, 0x1E06E), *range(0x1E4EC, 0x1E4F0)}


def newer():
    """Ranges of the code points whose combining class or decomposition the reference's normalizer, of an older Unicode version, does not know.
    A range may go over code points that have neither."""
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    known, ranges = [], []
    for c in CPS:
        u, ccc, dec = chr(c), unicodedata.combining(chr(c)), unicodedata.decomposition(chr(c))
        if c in U15:
            new = True
        elif dec:
            new = nfkd.normalize_str(u) == u
        elif ccc > 1:
            new = nfd.normalize_str(u + "\u0334") == u + "\u0334"
        elif ccc:
            new = nfd.normalize_str("\u0301" + u) == "\u0301" + u
        else:
            continue
        if not new:
            known.append(c)
        elif ranges and bisect.bisect_left(known, ranges[-1][1]) == len(known):
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return ranges


def main():
    tab = bytearray(0x110000)
    for i, name in enumerate(GC):
        if i:
            for c in members(r"\p{%s}" % name):
                tab[c] |= i
    words = pre_tokenizers.Whitespace()
    word = (c for c in CPS if len(words.pre_tokenize_str("a" + chr(c))) == 1 and not tab[c] & 0x20)
    for bit, it in ((0x20, members(r"\s")), (0x40, touched()), (0x80, word)):
        for c in it:
            tab[c] |= bit
    blocks, index = {}, []
    for i in range(0, 0x110000, 256):
        index.append(blocks.setdefault(bytes(tab[i : i + 256]), len(blocks)))

    def rows(values):
        return "\n".join("    " + ", ".join(map(str, values[i : i + 32])) + "," for i in range(0, len(values), 32))

    data = [b for block in blocks for b in block]
    new = newer()
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "src/text/ucd_tab.c")
    out.write_text(
        "/* Character classes in two levels: fa_ucd_block[cp >> 8] names a row of fa_ucd_data. Written by tools/make_ucd_tables.py. */\n"
        '#include "text/ucd.h"\n\n/* clang-format off */\n'
        f"const uint8_t fa_ucd_block[0x1100] = {{\n{rows(index)}\n}};\n\n"
        f"const uint8_t fa_ucd_data[{len(blocks)} * 256] = {{\n{rows(data)}\n}};\n\n"
        f"const uint32_t fa_ucd_ascii[128] = {{\n{rows([hex(1 << (b & 31) | (b & 32) << 26) for b in tab[:128]])}\n}};\n\n"
        f"const uint32_t fa_ucd_newer[][2] = {{\n    " + ", ".join("{0x%X, 0x%X}" % (a, b) for a, b in new) + ",\n};\n"
        f"const size_t fa_ucd_n_newer = {len(new)};\n"
    )


main()
