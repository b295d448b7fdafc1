#!/usr/bin/env python3
"""Writes src/text/jinja/case_tab.c: characters whose upper, lower or title case is more than one character, or differs
from the simple mapping, as Python's str methods have it. Usage: make_case_tables.py > src/text/jinja/case_tab.c"""
import sys
import unicodedata


def row(c, s):
    cps = [ord(x) for x in s] + [0, 0, 0]
    return "{0x%04X, {%s}}" % (c, ", ".join("0x%04X" % x if x else "0" for x in cps[:3]))


def table(name, f):
    rows = [row(c, f(chr(c))) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and len(f(chr(c))) > 1]
    lines, line = [], "   "
    for r in rows:
        if len(line) + len(r) + 2 > 118:
            lines.append(line)
            line = "   "
        line += " " + r + ","
    lines.append(line.rstrip(","))
    return "const fa_jjcase fa_jj_%s_case[] = {\n%s};\nconst size_t fa_jj_n_%s_case = %d;\n" % (
        name, "\n".join(lines), name, len(rows))


print("/* Characters whose case has several characters. Written by tools/make_case_tables.py (Unicode %s). */"
      % unicodedata.unidata_version)
print('#include "text/jinja/case_tab.h"\n')
sys.stdout.write("/* clang-format off */\n")
print(table("upper", str.upper))
print(table("title", str.title))
sys.stdout.write("/* clang-format on */\n")
