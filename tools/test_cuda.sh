#!/usr/bin/env bash
# tools/test_cuda.sh BUILD: the tests that carry the label cuda, on this machine's GPU instead of the emulated one.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$PWD/${1:-build/release}
if [ ! -f "$build/libffai_cuda.so" ]; then
    echo "test-cuda: this build has no GPU backend: it needs nvcc 12.8 or newer (CUDA toolkit) on the PATH" >&2
    exit 1
fi
if ! "$build/ffai" devices 2>/dev/null | grep -q '^cuda:0'; then
    echo "test-cuda: no usable NVIDIA GPU on this machine. Without one \"make test\" runs the GPU tests on an emulated device." >&2
    "$build/ffai" devices --verbose 2>&1 | grep -i -E 'cuda|driver|gpu' >&2 || true
    exit 1
fi
export FFAI_CUDA_MODULE=$build/libffai_cuda.so FFAI_TEST_CYCLES=${FFAI_TEST_CYCLES:-1000}
# one at a time: they share the GPU, and some fill its memory
ctest --test-dir "$build" -L cuda -E emu_selftest --output-on-failure -j 1
