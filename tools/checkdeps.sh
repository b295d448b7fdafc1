#!/usr/bin/env bash
# Who may include whom (docs/architecture.md):
#   base <- {io, tensor} <- backend <- {cache, ops} <- {blocks, text, media} <- families <- engine <- ffai.h <- {cli, server}
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
    blocks | media) echo "base io tensor cache ops blocks media" ;;
    text) echo "base io text" ;;
    families) echo "base tensor cache ops blocks families" ;;
    engine) echo "base io tensor backend cache ops blocks text media families engine" ;;
    cli) echo "cli" ;;
    server) echo "server" ;;
    *) echo "" ;;
    esac
}

while IFS= read -r f; do
    layer=${f#src/}
    layer=${layer%%/*}
    ok=" $(allowed "$layer") "
    [ "$ok" != "  " ] || fail "$f: unknown layer src/$layer (add it to tools/checkdeps.sh and docs/architecture.md)"
    while IFS= read -r inc; do
        [ -n "$inc" ] || continue
        case "$inc" in
        ffai.h)
            # The public header is for the front ends, for base/err.h (the error type) and for the engine that implements it.
            case "$layer" in cli | server | engine | base | tensor) ;; *) fail "$f includes $inc" ;; esac
            ;;
        */*) case "$ok" in *" ${inc%%/*} "*) ;; *) fail "$f ($layer) includes $inc" ;; esac ;;
        esac
    done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$f")
done < <(find src -name '*.[ch]' -o -name '*.cpp' | sort)

# Families are mathematics: no backend, no files, no heap, no environment.
if [ -d src/families ]; then
    hits=$(grep -nE '<stdio\.h>|backend/|\b(malloc|calloc|realloc|free|getenv|fopen)[[:space:]]*\(|#[[:space:]]*if.*CUDA' -r src/families --include='*.[ch]')
    [ -z "$hits" ] || fail "families: "$'\n'"$hits"
fi
# The library neither ends the process nor prints; the heap has one owner.
library() { find src -path src/cli -prune -o -path src/base/alloc.c -prune -o \( -name '*.[ch]' -o -name '*.cpp' \) -exec "$@" {} +; }
hits=$(library grep -nE '(^|[^_a-zA-Z>.])(exit|abort|_exit)[[:space:]]*\(' /dev/null)
[ -z "$hits" ] || fail "the library must not end the process:"$'\n'"$hits"
hits=$(library grep -nE '(^|[^_a-zA-Z>.])(malloc|calloc|realloc|strdup|strndup|aligned_alloc|posix_memalign)[[:space:]]*\(' /dev/null)
[ -z "$hits" ] || fail "heap memory comes from base/alloc.h:"$'\n'"$hits"
hits=$(library grep -nE '(^|[^_a-zA-Z>.])(f?printf|puts|fputs|perror|getenv|system|popen)[[:space:]]*\(' /dev/null)
[ -z "$hits" ] || fail "the library does not print and reads no environment:"$'\n'"$hits"

# Each header compiles alone.
cc=${CC:-cc}
flags=(-fsyntax-only -Iinclude -Isrc -Wall -Wextra -Wpedantic -Werror)
while IFS= read -r h; do
    echo "#include \"${h#*/}\"" | "$cc" -x c -std=c11 "${flags[@]}" - || fail "$h does not compile alone as C11"
done < <(find include src -name '*.h' ! -name 'kern_body_*' | sort)
echo '#include "ffai.h"' | "${CXX:-c++}" -x c++ -std=c++17 "${flags[@]}" - || fail "include/ffai.h does not compile alone as C++17"

exit $status
