#!/usr/bin/env bash
# The cache is shared with Python's huggingface_hub: it reads what ffai wrote, ffai reads what it wrote, both may write at once. Needs a Python
# with that package, FFAI_HUB_PYTHON or python3; skipped without.
set -uo pipefail
python=${FFAI_HUB_PYTHON:-python3}
if ! "$python" -c 'import huggingface_hub, filelock' 2>/dev/null; then
    echo "skipped: no Python with huggingface_hub"
    exit 77
fi
work=$(mktemp -d)
server=
trap '{ kill "$server"; wait "$server"; } 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
status=0
fail() { echo "FAIL: $*"; status=1; }
unset HF_HOME HF_TOKEN HF_TOKEN_PATH HF_HUB_OFFLINE HUGGINGFACE_HUB_CACHE http_proxy https_proxy all_proxy HTTPS_PROXY HTTP_PROXY ALL_PROXY
export HOME=$work/home HF_HUB_CACHE=$work/cache HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_DISABLE_UPDATE_CHECK=1
mkdir home
model=$FFAI_SOURCE_DIR/models/ffai-demo-6m
mkdir -p root/acme/demo/main/additional_chat_templates root/acme/large/main
cp "$model"/* root/acme/demo/main/
echo hello >root/acme/demo/main/additional_chat_templates/tool_use.jinja
cp "$model"/* root/acme/large/main/
head -c 30000000 /dev/urandom >root/acme/large/main/model.safetensors
"$FFAI_BUILD_DIR/hub_tool" root ports log &
server=$!
for _ in $(seq 200); do [ ! -f ports ] || break; sleep 0.05; done
export HF_ENDPOINT
HF_ENDPOINT=http://127.0.0.1:$(cut -d' ' -f1 ports)
py() { timeout 120 "$python" - "$@" 2>py.err || fail "Python: $(tail -3 py.err)"; }
ffai() { timeout 120 "$FFAI" "$@" || fail "ffai $*"; }
scan() {
    py <<'PY'
from huggingface_hub import scan_cache_dir
info = scan_cache_dir()
assert not info.warnings, info.warnings
print(" ".join(sorted(f"{r.repo_id}:{len(r.revisions)}:{r.size_on_disk}" for r in info.repos)))
PY
}

# ---- Python reads what ffai wrote
ffai pull acme/demo >path 2>/dev/null
: >log
HF_HUB_OFFLINE=1 py "$(cat path)" <<'PY'
import sys, os
from huggingface_hub import snapshot_download, hf_hub_download, try_to_load_from_cache, get_cached_repo_tree
path = sys.argv[1]
names = ["config.json", "model.safetensors", "tokenizer.json", "additional_chat_templates/tool_use.jinja"]
assert snapshot_download("acme/demo", allow_patterns=names) == path
assert hf_hub_download("acme/demo", "config.json") == path + "/config.json"
assert try_to_load_from_cache("acme/demo", "model.safetensors") == path + "/model.safetensors"
assert {f.path for f in get_cached_repo_tree("acme/demo")} >= set(names)
PY
[ ! -s log ] || fail "offline Python asked: $(cat log)"
size=$(cat root/acme/demo/main/{config,generation_config,tokenizer,tokenizer_config}.json root/acme/demo/main/model.safetensors \
    root/acme/demo/main/additional_chat_templates/tool_use.jinja | wc -c)
[ "$(scan)" = "acme/demo:1:$size" ] || fail "scan_cache_dir after pull: $(scan), not $size"
# online it only fetches what ffai left out (the README)
: >log
py <<'PY'
from huggingface_hub import snapshot_download
snapshot_download("acme/demo")
PY
{ [ "$(grep -c 'GET.*/resolve/' log)" = 1 ] && grep -q 'GET.*README' log; } || fail "Python fetched again: $(cat log)"
ffai rm acme/demo >/dev/null
[ -z "$(scan)" ] || fail "after rm Python sees $(scan)"

# ---- ffai reads what Python wrote
rm -rf cache
py <<'PY'
from huggingface_hub import hf_hub_download
hf_hub_download("acme/demo", "config.json")
PY
ffai list | grep -q '^acme/demo .*partial' || fail "list of one file: $(ffai list)"
py >path <<'PY'
from huggingface_hub import snapshot_download
print(snapshot_download("acme/demo"))
PY
: >log
ffai generate -m acme/demo -p 'The sea was' -n 8 --greedy >said 2>err
"$FFAI" generate -m "$model" -p 'The sea was' -n 8 --greedy | cmp -s - said || fail "generate from Python's cache: $(cat err)"
[ ! -s log ] || fail "ffai asked for what Python had fetched: $(cat log)"
ffai list | grep -q '^acme/demo .*7 ' || fail "list of Python's cache: $(ffai list)"
ffai list | grep -q partial && fail "list of Python's cache says partial"
rm -r cache/models--acme--demo/trees # as older versions leave it
ffai generate -m acme/demo -p 'The sea was' -n 8 --greedy | cmp -s - said || fail "without a listing"
[ ! -s log ] || fail "ffai asked, without a listing: $(cat log)"
[ "$(ffai pull acme/demo 2>/dev/null)" = "$(cat path)" ] || fail "pull over Python's snapshot"
grep -q 'GET.*/resolve/' log && fail "pull fetched what Python had fetched"
HF_HUB_OFFLINE=1 ffai pull acme/demo >/dev/null 2>&1

# ---- contents that two repositories share: they go with the last link
rm -rf cache
ffai pull acme/demo >/dev/null 2>&1
ffai pull acme/large >/dev/null 2>&1
py <<'PY'
import os
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store, try_link_from_shared_store
blobs = os.environ["HF_HUB_CACHE"] + "/models--acme--%s/blobs/"
tree = os.path.realpath(next(os.path.join(d, f) for d, _, n in os.walk(os.environ["HF_HUB_CACHE"] + "/models--acme--demo/snapshots") for f in n if f == "model.safetensors"))
size = os.path.getsize(tree)
kw = dict(xet_hash="ab" * 32, cache_dir=os.environ["HF_HUB_CACHE"], expected_size=size)
assert publish_blob_to_shared_store(blob_path=tree, **kw)
assert os.path.islink(tree)
other = blobs % "large" + os.path.basename(tree)
assert try_link_from_shared_store(blob_path=other, **kw)
PY
shared=cache/blobs/ab/$(printf 'ab%.0s' {1..32})
[ -f "$shared" ] || fail "Python shared nothing"
HF_HUB_OFFLINE=1 ffai generate -m acme/demo -p 'The sea was' -n 8 --greedy | cmp -s - said || fail "generate through a shared content"
ffai rm acme/demo --dry-run | grep -q "would free 109 KiB" || fail "rm --dry-run: $(ffai rm acme/demo --dry-run)"
ffai rm acme/demo | grep -q "freed 109 KiB" || fail "rm of links"
[ -f "$shared" ] || fail "rm removed what another repository uses"
ffai rm acme/large >/dev/null
[ ! -e "$shared" ] || fail "rm left a shared content that nothing uses"
[ ! -e "$shared.refs" ] || fail "rm left a manifest"

# ---- both at once
for _ in 1 2 3; do
    rm -rf cache
    py <<'PY' &
from huggingface_hub import snapshot_download
snapshot_download("acme/large")
PY
    child=$!
    sleep "0.$((RANDOM % 9))"
    ffai pull acme/large >/dev/null 2>&1
    wait $child || fail "Python beside ffai: $(cat py.err)"
    cmp -s cache/models--acme--large/snapshots/*/model.safetensors root/acme/large/main/model.safetensors || fail "both at once: wrong bytes"
    [ -z "$(find cache -name '*.incomplete')" ] || fail "both at once: $(find cache -name '*.incomplete')"
    scan >/dev/null
done

# ---- a lock that Python holds
rm -rf cache
sha=$(sha256sum root/acme/large/main/model.safetensors | cut -d' ' -f1)
mkdir -p cache/.locks/models--acme--large
"$python" - "cache/.locks/models--acme--large/$sha.lock" <<'PY' &
import sys, time
from huggingface_hub.utils import WeakFileLock
with WeakFileLock(sys.argv[1]):
    open("held", "w").close()
    time.sleep(2)
    open("released", "w").close()
PY
while [ ! -f held ]; do sleep 0.05; done
ffai pull acme/large >/dev/null 2>&1
[ -f released ] || fail "ffai did not wait for Python's lock"
wait %2 2>/dev/null
[ $status = 0 ] && echo ok
exit $status
