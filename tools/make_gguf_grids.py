#!/usr/bin/env python3
"""Writes src/tensor/qfmt/gguf_grids.h: the value grids of GGUF's IQ1, IQ2 and IQ3 types, out of the gguf package.

An entry is the values of 8 columns with 2 bits each, or of 4 columns with 3 bits each, first column lowest: the place
of each value in the grid's short list of values.
"""
import sys
from pathlib import Path

from gguf import quants

HEAD = """/* The value grids of GGUF's IQ1, IQ2 and IQ3 types: 8 columns of 2 bits or 4 columns of 3 bits an entry, first column
 * lowest; what the bits stand for is in gguf_iq.h. Written by tools/make_gguf_grids.py. */
#ifndef FA_TENSOR_QFMT_GGUF_GRIDS_H
#define FA_TENSOR_QFMT_GGUF_GRIDS_H

/* clang-format off */
"""
TAIL = """/* clang-format on */

#endif
"""


def entries(cls):
    cls.init_grid()
    grid = cls.grid.reshape(cls.grid_shape)
    bits = 2 if cls.grid_shape[1] == 8 else 3
    place = {float(v): i for i, v in enumerate(cls.grid_map)}
    return [sum(place[float(v)] << bits * i for i, v in enumerate(row)) for row in grid]


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else
               Path(__file__).parent.parent / "src/tensor/qfmt/gguf_grids.h")
    text = HEAD
    for name in ("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"):
        e = [f"{v}," for v in entries(getattr(quants, name))]
        text += f"#define FA_GRID_{name} \\\n"
        line = ""
        lines = []
        for v in e:
            if len(line) + len(v) > 112:
                lines.append(line)
                line = ""
            line += v
        lines.append(line)
        text += " \\\n".join("    " + x for x in lines) + "\n"
    out.write_text(text + TAIL)
    print(f"{out}: {len(text)} bytes")


if __name__ == "__main__":
    main()
