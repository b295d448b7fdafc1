#!/usr/bin/env bash
# make test-real: compares with the official implementation on real weights. Filled by the parity suite (tests/real).
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -x tests/real/run.sh ]; then
    exec tests/real/run.sh
fi
echo "test-real: tests/real/run.sh is not there yet" >&2
exit 1
