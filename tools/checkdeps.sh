#!/usr/bin/env bash
# Who may include whom (docs/architecture.md):
#   base <- {io, tensor} <- backend <- {cache, ops} <- {blocks, text, media} <- families <- engine <- ffai.h <- {cli, server};  io <- hub <- ffai.h;  cli: io/npy.h, io/json.h too
# plus what the layers may not touch at all, and that each header compiles alone, as C11 and (shared ones) as C++17.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
status=0
fail() { echo "checkdeps: $*" >&2; status=1; }

allowed() {
    case "$1" in
    base) echo "base" ;;
    io) echo "base io tensor" ;;
    tensor) echo "base tensor" ;;
    backend) echo "base io tensor backend" ;;
    cache | ops) echo "base io tensor backend cache ops" ;;
    blocks) echo "base io tensor cache ops blocks families/family.h" ;; # a block reads its own part of the config
    media) echo "base io tensor media" ;;
    text) echo "base io text" ;;
    hub) echo "base io hub" ;; # downloads know files and names, not models
    families) echo "base io tensor cache ops blocks families" ;; # config reader, binder, registry
    families/*) echo "base tensor cache ops blocks families" ;;  # one family a file
    engine) echo "base io tensor backend cache ops blocks text media families engine" ;;
    cli) echo "cli io/npy.h io/json.h base/err.h" ;; # file formats only: the engine is reached through ffai.h
    server) echo "server" ;;
    *) echo "" ;;
    esac
}

while IFS= read -r f; do
    layer=${f#src/}
    case "$layer" in
    families/*/*) layer=families/${layer#*/} layer=${layer%/*} ;;
    *) layer=${layer%%/*} ;;
    esac
    ok=" $(allowed "$layer") "
    [ "$ok" != "  " ] || fail "$f: unknown layer src/$layer (add it to tools/checkdeps.sh and docs/architecture.md)"
    while IFS= read -r inc; do
        [ -n "$inc" ] || continue
        case "$inc" in
        ffai.h)
            # The public header is for the front ends, for base/err.h (the error type) and for the engine that implements it.
            case "$layer" in cli | server | engine | hub | base | tensor | families) ;; *) fail "$f includes $inc" ;; esac
            ;;
        */*) case "$ok" in *" ${inc%%/*} "* | *" $inc "*) ;; *) fail "$f ($layer) includes $inc" ;; esac ;;
        esac
    done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$f")
done < <(find src -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | sort)

# A family is mathematics: no backend, no files, no heap, no environment.
if [ -d src/families ]; then
    hits=$(find src/families -mindepth 2 -name '*.[ch]' -exec grep -nE '<stdio\.h>|\b(malloc|calloc|realloc|free|getenv|fopen)[[:space:]]*\(|#[[:space:]]*if.*CUDA' /dev/null {} +)
    [ -z "$hits" ] || fail "families: "$'\n'"$hits"
fi
# The library neither ends the process nor prints; the heap has one owner.
library() { find src -path src/cli -prune -o -path src/base/alloc.c -prune -o \( -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -exec "$@" {} +; }
hits=$(library grep -nE '(^|[^_a-zA-Z>.])(exit|abort|_exit)[[:space:]]*\(' /dev/null)
[ -z "$hits" ] || fail "the library must not end the process:"$'\n'"$hits"
hits=$(library grep -nE '(^|[^_a-zA-Z>.])(malloc|calloc|realloc|strdup|strndup|aligned_alloc|posix_memalign)[[:space:]]*\(' /dev/null)
[ -z "$hits" ] || fail "heap memory comes from base/alloc.h:"$'\n'"$hits"
hits=$(library grep -nE '(^|[^_a-zA-Z>.])((printf|puts|putchar|perror|getenv|system|popen)[[:space:]]*\(|fprintf\(std|fputs\([^,]*, std)' /dev/null)
[ -z "$hits" ] || fail "the library does not print and reads no environment:"$'\n'"$hits"

# Each header compiles alone; a header of an instruction set with the flags that its files get (cmake/FfaiIsa.cmake).
cc=${CC:-cc}
flags=(-fsyntax-only -Iinclude -Isrc -Wall -Wextra -Wpedantic -Werror -Wno-unused-function -Wno-unused-const-variable)
machine=$("$cc" -dumpmachine)
isa_flags() {
    case "$1" in
    *_avx512*.h) echo "-mavx2 -mfma -mf16c -mbmi -mbmi2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni" ;;
    *_avx2.h | *_x86.h) echo "-mavx2 -mfma -mf16c -mbmi -mbmi2" ;;
    esac
}
while IFS= read -r h; do
    case "$h:$machine" in
    *_neon*.h:x86_64* | *_avx*.h:aarch64* | *_x86*.h:aarch64*) continue ;; # another machine's
    esac
    read -ra isa <<<"$(isa_flags "$h")"
    printf '#include "%s"\ntypedef int not_empty;\n' "${h#*/}" | "$cc" -x c -std=c11 "${flags[@]}" "${isa[@]}" - || fail "$h does not compile alone as C11"
done < <(find include src -name '*.h' ! -name 'kern_body_*' ! -path 'src/backend/cuda/*' | sort)
# The CUDA backend's are C++, here over the emulated runtime of the tests.
if [[ $machine == x86_64* ]]; then
    while IFS= read -r h; do
        printf '#include "%s"\ntypedef int not_empty;\n' "${h#*/}" | "${CXX:-c++}" -x c++ -std=c++17 "${flags[@]}" -Wno-pedantic -Wno-unknown-pragmas -DFA_CUDA_EMU -Itests/cuda/emu - ||
            fail "$h does not compile alone as C++17"
    done < <(find src/backend/cuda -name '*.h' -o -name '*.cuh' | sort)
fi
echo '#include "ffai.h"' | "${CXX:-c++}" -x c++ -std=c++17 "${flags[@]}" - || fail "include/ffai.h does not compile alone as C++17"

exit $status
