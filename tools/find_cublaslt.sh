# shellcheck shell=bash
# To be sourced: adds cuBLASLt to LD_LIBRARY_PATH where the module does not look for it by itself, in Python's packages, say.
if ! ls /usr/local/cuda/lib*/libcublasLt.so* >/dev/null 2>&1 && ! ldconfig -p 2>/dev/null | grep -q libcublasLt; then
    blas=$(find / -path /proc -prune -o -name 'libcublasLt.so.1[23]' -printf '%h\n' -quit 2>/dev/null) || true
    [ -n "$blas" ] && export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$blas"
    unset blas
fi
