#!/usr/bin/env python3
"""Speed of our tokenizers beside HuggingFace `tokenizers` and `tiktoken`, all on one thread, in one run, taking turns.

    bench/tokenizers.py [--tool build/tok_tool] [--rounds 5] [--mb 5] [--also FILE]... DIR...

DIR holds tokenizer.json. Text is cut into documents of some 16 KB, which every side gets one by one (as one list, where it takes lists); the ids of
all sides are compared. The texts are put together from what a Debian machine with Python and Perl has: English from licences, the manuals inside of
Perl's and Python's modules (each paragraph once), code from Python's library and C headers. Such text repeats words more than novels do. Times are
processor seconds. "first" is a tokenizer just loaded, whose word cache is empty, going over the text once; "again" is the same text once more.
Texts are in NFC,
because tiktoken does not normalize; it gets the ranks out of tokenizer.json, and has no model for tokenizers that are not byte level. Needs tokenizers and tiktoken."""
import argparse
import ast
import glob
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata
import warnings

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
sys.path = [p for p in sys.path if os.path.abspath(p or ".") != os.path.dirname(os.path.abspath(__file__))]  # this file has the package's name
from importlib.metadata import version  # noqa: E402

import tiktoken  # noqa: E402
import tokenizers  # noqa: E402

DOC = 16384


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def docstrings(source):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def english():
    for path in sorted(glob.glob("/usr/share/common-licenses/*")):
        yield read(path)
    for path in sorted(glob.glob("/usr/share/perl/5*/**/*.p[mo]*", recursive=True) + glob.glob("/usr/lib/*/perl*/**/*.p[mo]*", recursive=True)):
        yield from (m.group(0) for m in re.finditer(r"^=(?:head|pod|over|item).*?(?=^=cut|\Z)", read(path), re.M | re.S))
    for path in sorted(glob.glob("/usr/lib/python3*/**/*.py", recursive=True)):
        yield from (d for d in docstrings(read(path)) if len(d) > 200)


def code():
    for path in sorted(glob.glob("/usr/lib/python3.*/*.py")) + sorted(glob.glob("/usr/include/**/*.h", recursive=True)):
        yield read(path)


def gather(parts, nbytes, once):
    """Up to nbytes of text; with `once` no paragraph comes twice."""
    seen, out, size = set(), [], 0
    for part in parts:
        for piece in part.split("\n\n") if once else [part]:
            if once and (len(piece) < 80 or piece in seen):
                continue
            seen.add(piece)
            out.append(piece)
            size += len(piece.encode()) + 2
            if size >= nbytes:
                return unicodedata.normalize("NFC", "\n\n".join(out))
    return unicodedata.normalize("NFC", "\n\n".join(out))


def documents(text):
    docs, at = [], 0
    while at < len(text):
        end = min(at + DOC, len(text))
        if end < len(text):
            end = text.rfind("\n", at, end) + 1 or end
        docs.append(text[at:end])
        at = end
    return docs


class Ours:
    def __init__(self, tool, folder):
        self.p = subprocess.Popen([tool, "serve", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        seconds, kb = self.p.stdout.readline().split()
        self.peak = int(kb) * 1.024e-3

    def ask(self, line):
        print(line, file=self.p.stdin, flush=True)
        return float(self.p.stdout.readline().split()[0])


def tiktoken_of(path):
    j = json.loads(read(path))
    steps = j["pre_tokenizer"].get("pretokenizers", [j["pre_tokenizer"]]) if j["pre_tokenizer"] else []
    split = [s["pattern"]["Regex"] for s in steps if s["type"] == "Split" and "Regex" in s["pattern"]]
    if len(split) != 1 or not any(s["type"] == "ByteLevel" for s in steps):
        return None
    byte = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    rest = [b for b in range(256) if b not in byte]
    of = {chr(b): b for b in byte} | {chr(256 + i): b for i, b in enumerate(rest)}
    ranks = {bytes(of[c] for c in t): i for t, i in j["model"]["vocab"].items() if all(c in of for c in t)}
    return tiktoken.Encoding("bench", pat_str=split[0], mergeable_ranks=ranks, special_tokens={})


def clock(fn):
    t = time.process_time()
    r = fn()
    return time.process_time() - t, r


def spread(values, scale):
    v = sorted(scale / x for x in values)
    return f"{statistics.median(v):.1f} ({v[0]:.1f} .. {v[-1]:.1f})"


def flat(lists):
    return [i for ids in lists for i in ids]


def compare(args, folder, name, docs, tmp):
    """One row: MB/s of each side."""
    path = os.path.join(folder, "tokenizer.json")
    ours, hf, tik = Ours(args.tool, folder), tokenizers.Tokenizer.from_file(path), tiktoken_of(path)
    mb = sum(len(d.encode()) for d in docs) * 1e-6
    records, out = os.path.join(tmp, "docs"), os.path.join(tmp, "ids")
    with open(records, "wb") as f:
        for d in docs:
            b = d.encode()
            f.write(struct.pack("<I", len(b)) + b)
    times = {k: [] for k in ("first", "again", "hf", "tiktoken")}
    for _ in range(args.rounds):
        ours.ask("fresh")
        times["first"].append(ours.ask(f"docs {records}"))
        times["again"].append(ours.ask(f"docs {records}"))
        s, enc = clock(lambda: hf.encode_batch_fast(docs, add_special_tokens=False))
        times["hf"].append(s)
        if tik:
            s, tik_ids = clock(lambda: [tik.encode_ordinary(d) for d in docs])
            times["tiktoken"].append(s)
    ours.ask(f"ids {records} {out}")
    with open(out, "rb") as f:
        got = f.read()
    want = flat(e.ids for e in enc)
    same = got == struct.pack(f"<{len(want)}i", *want)
    same_tik = None if not tik else flat(tik_ids) == want
    words = re.findall(r"\s?\w+|[^\w\s]+|\s+", "".join(docs))
    print(f"| {os.path.basename(folder.rstrip('/'))} | {name} | {spread(times['first'], mb)} | {spread(times['again'], mb)} | {spread(times['hf'], mb)} | "
          f"{spread(times['tiktoken'], mb) if tik else '-'} | {'yes' if same else 'NO'}{'' if same_tik is None else ', yes' if same_tik else ', NO'} |", flush=True)
    return same and same_tik is not False, f"{name}: {mb:.2f} MB, {len(docs)} documents, {len(words)} words of which {len(set(words))} different"


def load(args, folder):
    path = os.path.join(folder, "tokenizer.json")
    ours = Ours(args.tool, folder)
    a, b = [], []
    for _ in range(args.rounds):
        a.append(ours.ask("load"))
        b.append(clock(lambda: tokenizers.Tokenizer.from_file(path))[0])
    script = f"import tokenizers\ntokenizers.Tokenizer.from_file({path!r})\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    peak = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout) * 1.024e-3
    ms = [f"{statistics.median(v) * 1e3:.0f} ({min(v) * 1e3:.0f} .. {max(v) * 1e3:.0f})" for v in (a, b)]
    print(f"| {os.path.basename(folder.rstrip('/'))} | {os.path.getsize(path) / 1e6:.1f} | {ms[0]} | {ms[1]} | {ours.peak:.0f} | {peak:.0f} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dirs", nargs="+")
    p.add_argument("--tool", default="build/tok_tool")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--mb", type=float, default=5)
    p.add_argument("--also", action="append", default=[], help="another text file")
    args = p.parse_args()
    nbytes = int(args.mb * 1e6)
    texts = {"English": gather(english(), nbytes, True), "code": gather(code(), nbytes, False)}
    texts |= {os.path.basename(f): read(f) for f in args.also}
    print(f"tokenizers {version('tokenizers')}, tiktoken {version('tiktoken')}; MB/s, median (slowest .. fastest) of {args.rounds} rounds\n")
    print("| tokenizer | text | ours, first | ours, again | tokenizers | tiktoken | same ids |\n|---|---|---|---|---|---|---|")
    ok, about = True, {}
    with tempfile.TemporaryDirectory() as tmp:
        for d in args.dirs:
            for name, text in texts.items():
                same, about[name] = compare(args, d, name, documents(text), tmp)
                ok = ok and same
    print("\n" + "; ".join(about.values()) + "\n")
    print("| tokenizer.json | MB | ours, ms | tokenizers, ms | ours, peak MB | tokenizers, peak MB (with Python) |\n|---|---|---|---|---|---|")
    for d in args.dirs:
        load(args, d)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
