#!/usr/bin/env python3
"""Collects the demo model's training text: public-domain English prose out of Debian packages.

Owns the whole way from package names to clean text, so that the corpus can be made again on any
Debian 12 machine: `corpus.py OUTDIR` downloads the packages named below with apt-get (nothing is
installed), unpacks them, and writes one file per source, OUTDIR/<source>.txt. In these files
documents (chapters) are separated by a line holding one form feed, paragraphs by an empty line, and
each paragraph is one line. The texts are all in the public domain because of their age; what the
packages themselves are licensed under (MIT, BSD, GPL) covers their code, which is not used.
"""
import argparse
import bz2
import lzma
import pathlib
import re
import struct
import subprocess
import sys
import zlib

PACKAGES = {
    "r-cran-janeaustenr": "Jane Austen's six novels (1811-1817)",
    "r-cran-tokenizers": "Herman Melville, Moby-Dick (1851)",
    "golang-1.19-src": "Isaac Newton, Opticks, 4th edition (1730)",
    "bible-kjv-text": "The King James Bible (1611)",
    "bible-kjv": "the program that prints bible-kjv-text",
}

# Books of the Bible that are narrative or discourse; left out are those that are mostly lists, law
# or verse.
KJV_BOOKS = (
    "Genesis Exodus Deuteronomy Joshua Judges Ruth 1Samuel 2Samuel 1Kings 2Kings Nehemiah Esther Job "
    "Proverbs Ecclesiastes Isaiah Jeremiah Ezekiel Daniel Jonah Matthew Mark Luke John Acts Romans "
    "1Corinthians 2Corinthians Galatians Ephesians Hebrews James 1Peter"
).split()

ASCII = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2014": "--", "\u2013": "-",
    "\u00e6": "ae", "\u00c6": "Ae", "\u0153": "oe", "\u0152": "Oe", "\u00a0": " ", "\u00a3": "L",
})


def fetch(work):
    """Downloads and unpacks every package; returns {package: folder}."""
    work.mkdir(parents=True, exist_ok=True)
    roots = {}
    for name in PACKAGES:
        if not list(work.glob(name + "_*.deb")):
            subprocess.run(["apt-get", "download", name], cwd=work, check=True)
        deb = sorted(work.glob(name + "_*.deb"))[-1]
        roots[name] = work / name
        if not roots[name].exists():
            subprocess.run(["dpkg-deb", "-x", deb, roots[name]], check=True)
    return roots


def r_objects(path):
    """Yields the serialized objects of an R lazy-load database: each a big-endian length, then gzip
    data, or one type letter and bzip2 or xz data."""
    data = path.read_bytes()
    pos = 0
    while pos < len(data):
        size = struct.unpack(">I", data[pos:pos + 4])[0]
        pos += 4
        kind = data[pos:pos + 1]
        if kind == b"2":
            stream, pos = bz2.BZ2Decompressor(), pos + 1
        elif kind == b"Z":
            stream, pos = lzma.LZMADecompressor(), pos + 1
        else:
            stream = zlib.decompressobj()
        obj = stream.decompress(data[pos:])
        if len(obj) != size:
            raise SystemExit(f"{path}: object of {len(obj)} bytes, {size} announced")
        pos = len(data) - len(stream.unused_data)
        yield obj


def r_strings(obj):
    """The strings of a serialized R character vector (XDR, version 2 or 3; attributes ignored)."""
    pos = 2 + 12
    if struct.unpack(">I", obj[2:6])[0] == 3:
        pos += 4 + struct.unpack(">I", obj[pos:pos + 4])[0]
    flags, count = struct.unpack(">II", obj[pos:pos + 8])
    if flags & 0xFF != 16:
        raise SystemExit(f"not a character vector: R type {flags & 0xFF}")
    pos += 8
    out = []
    for _ in range(count):
        size = struct.unpack(">i", obj[pos + 4:pos + 8])[0]
        pos += 8
        out.append(obj[pos:pos + max(size, 0)].decode("utf-8"))
        pos += max(size, 0)
    return out


def paragraphs(text):
    """Cleans plain text with hard line ends into a list of one-line paragraphs; drops headings,
    verse, tables, notes and anything that does not look like a run of sentences."""
    out = []
    for block in re.split(r"\n[ \t]*\n", text.replace("\r", "")):
        lines = [line for line in block.split("\n") if line.strip()]
        if not lines or sum(line.startswith("    ") for line in lines) * 2 > len(lines):
            continue
        par = " ".join(line.strip() for line in lines).translate(ASCII)
        par = re.sub(r"\[(?:Illustration[^\]]*|\w{1,3})\]", "", par)
        par = re.sub(r"[_{}|=*]", "", par)
        par = re.sub(r"\s+", " ", par).strip()
        par = re.sub(r" ?-{2,} ?", "--", par)
        letters = sum(c.isalpha() for c in par)
        upper = sum(c.isupper() for c in par)
        digits = sum(c.isdigit() for c in par)
        if len(par) < 3 or letters < 0.6 * len(par) or upper > 0.3 * letters or digits > 0.02 * len(par):
            continue
        if not all(" " <= c <= "~" for c in par):
            par = "".join(c for c in par if " " <= c <= "\u00ff")
        if par[-1] not in ".!?\"':;,-)" or re.match(r"(?i)(chapter|volume|finis|the end|end of)\b", par):
            continue
        out.append(par)
    return out


def chapters(text, heading):
    """Splits text at lines that match heading; each chapter is a list of paragraphs."""
    docs = [paragraphs(part) for part in re.split(heading, text, flags=re.M)]
    return [doc for doc in docs if sum(map(len, doc)) > 1000]


def austen(roots):
    base = roots["r-cran-janeaustenr"] / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    docs = []
    for obj in r_objects(base):
        docs += chapters("\n".join(r_strings(obj)), r"^\s*(?:CHAPTER|Chapter)\b.*$")
    return docs


def melville(roots):
    base = roots["r-cran-tokenizers"] / "usr/lib/R/site-library/tokenizers/data/Rdata.rdb"
    text = "\n".join(r_strings(next(r_objects(base)))).replace("\r", "")
    start = text.index("Call me Ishmael")
    end = text.index("End of Project Gutenberg") if "End of Project Gutenberg" in text else len(text)
    end = min(end, text.find("*** END OF") if "*** END OF" in text else end)
    return chapters(text[start:end], r"^(?:CHAPTER \d+\..*|Epilogue)$")


def newton(roots):
    base = roots["golang-1.19-src"] / "usr/share/go-1.19/src/testdata/Isaac.Newton-Opticks.txt"
    text = base.read_text(encoding="utf-8")
    return chapters(text[text.index("_Part of the ensuing Discourse"):], r"^.*(?:PROP\.|_?Exper\._? |_Obs\._).*$")


def kjv(roots):
    """Chapters of the King James Bible without verse numbers, four verses a paragraph."""
    program = roots["bible-kjv"] / "usr/bin/bible"
    data = roots["bible-kjv-text"] / "usr/lib"
    run = subprocess.run([program, "-p", data, "-l30000", "Gen1:1-Rev22:21"], check=True, capture_output=True, text=True)
    docs, verses, book = [], [], None
    for line in run.stdout.split("\n") + ["End 1"]:
        head = re.match(r"^((?:\d )?[A-Z][A-Za-z ]+?) \d+$", line)
        verse = re.match(r"^\s+\d+ (.*)$", line)
        if head:
            if book in KJV_BOOKS and verses:
                docs.append([" ".join(verses[i:i + 4]) for i in range(0, len(verses), 4)])
            book, verses = head[1].replace(" ", ""), []
        elif verse:
            verses.append(re.sub(r"\s+", " ", verse[1].replace("[", "").replace("]", "")).strip())
    return docs


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("outdir", type=pathlib.Path)
    out = args.parse_args().outdir
    roots = fetch(out / "packages")
    total = 0
    for source in (austen, melville, newton, kjv):
        docs = source(roots)
        text = "\n\f\n".join("\n\n".join(doc) for doc in docs) + "\n"
        (out / f"{source.__name__}.txt").write_text(text, encoding="utf-8")
        total += len(text)
        print(f"{source.__name__}: {len(docs)} documents, {len(text):,} characters", file=sys.stderr)
    print(f"total: {total:,} characters", file=sys.stderr)


if __name__ == "__main__":
    main()
