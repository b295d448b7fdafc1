#!/usr/bin/env bash
# What protects the program and the libraries against errors that are still in them (cmake/FfaiHarden.cmake), read from the files: position
# independence, tables that are read-only after start, no executable stack, stack protectors, checked libc calls, branch protection.
set -u # no pipefail: grep -q ends its writer early
[ -n "${FFAI:-}" ] || { echo "FFAI is not set"; exit 77; }
if [ -n "${FFAI_SANITIZE:-}" ] || ! grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=\(Release\|RelWithDebInfo\|MinSizeRel\)$' "$FFAI_BUILD_DIR/CMakeCache.txt"; then
    echo "skipped: only optimised builds without sanitizers are hardened"
    exit 77
fi
fails=0
fail() {
    echo "FAIL $*"
    fails=$((fails + 1))
}
objects=$(find "$FFAI_BUILD_DIR/CMakeFiles/ffai_objects.dir" -name '*.o')
shared=$(find "$FFAI_BUILD_DIR" -maxdepth 1 -name 'libffai*.so' | sort)
[ -n "$shared" ] || fail "no shared library in $FFAI_BUILD_DIR"

for f in "$FFAI" $shared; do
    name=${f##*/}
    readelf -hW "$f" | grep -q 'Type: *DYN' || fail "$name: not position independent"
    readelf -lW "$f" | grep -q 'GNU_RELRO' || fail "$name: no RELRO"
    readelf -dW "$f" | grep -qE '\(FLAGS(_1)?\).*(BIND_NOW|NOW)' || fail "$name: symbols are bound late: RELRO is not full"
    readelf -lW "$f" | awk '$1 == "GNU_STACK" {print $7}' | grep -qx 'RW' || fail "$name: the stack is executable"
    readelf -lW "$f" | awk '$1 == "LOAD" && / RWE /' | grep -q . && fail "$name: memory that is writable and executable"
    readelf -dW "$f" | grep -qE '\((RPATH|RUNPATH|TEXTREL)\)' && fail "$name: RPATH, RUNPATH or TEXTREL"
    readelf -sW "$f" | grep -q '__stack_chk_fail' || fail "$name: no stack protector"
    readelf -sW "$f" | grep -qE '__(sn?printf|v?sn?printf|memcpy|strcpy|strcat|read|fprintf)_chk' || fail "$name: no checked libc calls"
done
readelf -dW "$FFAI" | grep -q 'FLAGS_1.*PIE' || fail "ffai: not a position-independent program"

# Branch protection is a property of each object; the whole has it only when the system's start files and libraries have it too.
case $(uname -m) in
x86_64) property='IBT, SHSTK' ;;
aarch64) property='BTI, PAC' ;;
*) property= ;;
esac
n=0
for o in $objects; do
    n=$((n + 1))
    [ -z "$property" ] || readelf -nW "$o" 2>/dev/null | grep -q "$property" || fail "${o##*/}: no branch protection ($property)"
    [ $fails -lt 10 ] || break
done
[ $n -gt 100 ] || fail "only $n objects were found"
[ $fails = 0 ] && echo "all well: $n objects, ffai, ${shared//$FFAI_BUILD_DIR\//}"
exit $((fails > 0))
