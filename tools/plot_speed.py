#!/usr/bin/env python3
"""Draws what `tools/bench_peers.py --sweep` measured: prefill and decode against length, decode against the number of sequences, ffai beside
llama.cpp, the median of the rounds with a band from the slowest to the fastest.

    plot_speed.py OUT.csv OUT.svg        needs matplotlib from PyPI; the ending (svg, png, pdf) chooses the format
"""
import collections, csv, statistics, sys

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOUR = {"ffai": "#0b6e4f", "llama.cpp": "#c8553d"}
DASH = ["-", "--", ":", "-."]
# title, axis, the rows of it, what lies along x
PANELS = (("prefill", "prompt, tokens", lambda r: r["phase"] == "prefill", "length"),
          ("decode behind a prompt, one sequence", "prompt, tokens", lambda r: r["phase"] == "decode" and r["batch"] == "1", "length"),
          ("decode behind 128 tokens, all sequences", "sequences", lambda r: r["phase"] == "decode" and r["length"] == "128", "batch"))


def draw(ax, rows, pairs, along):
    points = collections.defaultdict(list)
    for r in rows: points[r["pair"], r["program"], int(r[along])].append(float(r["tok_s"]))
    for i, pair in enumerate(pairs):
        for who, colour in COLOUR.items():
            xs = sorted(x for p, w, x in points if (p, w) == (pair, who))
            ys = [points[pair, who, x] for x in xs]
            ax.plot(xs, [statistics.median(y) for y in ys], DASH[i % len(DASH)], color=colour, marker="o", ms=3, lw=1.3, label=f"{who}, {pair}")
            ax.fill_between(xs, [min(y) for y in ys], [max(y) for y in ys], color=colour, alpha=0.12, lw=0)
    ax.set_xscale("log", base=2)
    ax.set_ylim(bottom=0)
    ticks = sorted({x for _, _, x in points})
    ax.set_xticks(ticks, [str(x) for x in ticks])


def main():
    if len(sys.argv) != 3: sys.exit(__doc__.strip())
    with open(sys.argv[1], newline="") as f: rows = list(csv.DictReader(f))
    pairs = list(dict.fromkeys(r["pair"] for r in rows))
    fig, axes = plt.subplots(1, len(PANELS), figsize=(15, 4.6), layout="constrained")
    for ax, (title, x, keep, along) in zip(axes, PANELS):
        draw(ax, [r for r in rows if keep(r)], pairs, along)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel(x)
        ax.grid(alpha=0.25, lw=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("tokens per second")
    axes[-1].legend(fontsize=8, frameon=False)
    fig.savefig(sys.argv[2], dpi=150, metadata={"Date": None} if sys.argv[2].endswith("svg") else None)


if __name__ == "__main__": main()
