#!/usr/bin/env bash
# Downloads end to end: the program against hub_tool, which plays a hub on two local ports and misbehaves on demand. No network is touched.
set -uo pipefail
tool=$FFAI_BUILD_DIR/hub_tool
work=$(mktemp -d)
server=
stop() { [ -z "$server" ] || { kill "$server"; wait "$server"; } 2>/dev/null; server=; }
trap 'stop; rm -rf "$work"' EXIT
cd "$work" || exit 1
status=0
fail() { echo "FAIL: $*"; status=1; }
for v in HF_HOME HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_TOKEN_PATH HF_HUB_OFFLINE TRANSFORMERS_OFFLINE HUGGINGFACE_HUB_CACHE http_proxy https_proxy all_proxy \
    HTTPS_PROXY ALL_PROXY HF_HUB_DISABLE_IMPLICIT_TOKEN CURL_CA_BUNDLE SSL_CERT_FILE REQUESTS_CA_BUNDLE; do unset $v; done
export HOME=$work/home HF_HUB_CACHE=$work/cache NO_COLOR=1 no_proxy=
mkdir -p home

# What the hub has: the carried model in two revisions, a repository of GGUF files, a large file, names in folders.
model=$FFAI_SOURCE_DIR/models/ffai-demo-6m
main=root/acme/demo/main
mkdir -p $main root/acme/demo/v2 root/acme/gguf/main/big root/acme/large/main root/acme/pickle/main
cp "$model"/* $main/
cp "$model"/* root/acme/demo/v2/
sed -i 's/"max_new_tokens"/"max_new_tokens_"/' root/acme/demo/v2/generation_config.json
echo ' ' >>root/acme/demo/v2/generation_config.json
mkdir -p $main/onnx $main/1_Pooling $main/additional_chat_templates
echo pickle >$main/pytorch_model.bin
echo pickle >$main/onnx/model.onnx
echo '{}' >$main/1_Pooling/config.json
echo '{}' >$main/onnx/config.json
echo '{}' >$main/trainer_state.json
echo 'hello' >"$main/additional_chat_templates/with space & plus+.jinja"
: >$main/added_tokens.json
for q in BF16 Q4_K_M Q8_0 Q4_K_S IQ2_M; do echo "gguf $q" >root/acme/gguf/main/model-$q.gguf; done
echo projector >root/acme/gguf/main/mmproj-model-F16.gguf
echo one >root/acme/gguf/main/big/model-F32-00001-of-00002.gguf
echo two >root/acme/gguf/main/big/model-F32-00002-of-00002.gguf
echo pickle >root/acme/pickle/main/pytorch_model.bin
echo '{}' >root/acme/pickle/main/config.json
head -c 40000000 /dev/urandom >root/acme/large/main/model.safetensors
echo '{}' >root/acme/large/main/config.json

large=$(sha256sum <root/acme/large/main/model.safetensors | cut -d' ' -f1)

# serve FAULT...: a hub with these faults
serve() {
    stop
    rm -f ports log
    "$tool" root ports log "$@" &
    server=$!
    for _ in $(seq 200); do [ ! -f ports ] || break; sleep 0.05; done
    export HF_ENDPOINT
    HF_ENDPOINT=http://127.0.0.1:$(cut -d' ' -f1 ports)
}
ffai() { timeout 60 "$FFAI" "$@"; }
fresh() { rm -rf cache; }
# good COMMAND...: succeeds
good() { ffai "$@" >out 2>err || fail "ffai $*: status $?: $(cat err)"; }
# bad STATUS WORDS COMMAND...: fails so, with one line that holds the words
bad() {
    local want=$1 words=$2
    shift 2
    ffai "$@" >out 2>err
    local got=$?
    [ $got = "$want" ] || fail "ffai $*: status $got instead of $want: $(cat err)"
    grep -qF -- "$words" err || fail "ffai $*: does not say \"$words\": $(cat err)"
    [ "$(grep -c '' err)" = 1 ] || fail "ffai $*: more than one line: $(cat err)"
    [ ! -s out ] || fail "ffai $*: wrote to standard output: $(cat out)"
}
# whole REPO: every link of the main snapshot leads to the bytes of the hub
whole() {
    local snap name
    snap=cache/models--${1/\//--}/snapshots/$(cat "cache/models--${1/\//--}/refs/${2:-main}") || return 1
    [ -n "$(ls "$snap")" ] || fail "$1: empty snapshot"
    while IFS= read -r name; do
        [ -L "$snap/$name" ] || fail "$snap/$name is no link"
        cmp -s "$snap/$name" "root/$1/${2:-main}/$name" || fail "$1: $name differs"
        case $(readlink "$snap/$name") in ../*blobs/*) ;; *) fail "$name links to $(readlink "$snap/$name")" ;; esac
    done < <(cd "$snap" && find . -type l | sed 's,^\./,,')
    [ -z "$(find cache -name '*.incomplete' -o -name '*.tmp')" ] || fail "left behind: $(find cache -name '*.incomplete' -o -name '*.tmp')"
}
count() { grep -cF -- "$1" log; }

# ---- what a model needs, and nothing else
serve
good pull acme/demo
snap=$work/cache/models--acme--demo/snapshots/$(cat cache/models--acme--demo/refs/main)
[ "$(cat out)" = "$snap" ] || fail "pull prints $(cat out)"
got=$(cd "$snap" && find . -type l | sort | tr '\n' ' ')
want='./1_Pooling/config.json ./added_tokens.json ./additional_chat_templates/with space & plus+.jinja ./config.json ./generation_config.json ./model.safetensors ./tokenizer.json ./tokenizer_config.json '
[ "$got" = "$want" ] || fail "pull fetched $got"
whole acme/demo
[ "$(stat -c %a cache/.locks/models--acme--demo/*.lock | sort -u)" = 664 ] || [ "$(stat -c %a cache/.locks/models--acme--demo/*.lock | sort -u)" = 644 ] || fail "modes of locks"
grep -q 'fetched 8 files' err || fail "pull says $(cat err)"
# the second time nothing is fetched
: >log
good pull acme/demo
grep -q 'everything is in the cache' err || fail "second pull: $(cat err)"
[ "$(count /resolve/)" = 0 ] || fail "second pull fetched"
[ "$(grep -c '' log)" = 1 ] || fail "second pull: more than one request: $(cat log)" # the listing of a commit is kept

# ---- an id wherever a model goes, without a question to the hub when it is there
: >log
good generate -m acme/demo -p 'The sea was' -n 8 --greedy
cp out said
"$FFAI" generate -m "$model" -p 'The sea was' -n 8 --greedy | cmp -s - said || fail "generate by id differs"
good tokenize -m acme/demo -p 'The sea'
good inspect -m acme/demo
[ ! -s log ] || fail "a cached model asked the hub: $(cat log)"
fresh
good tokenize -m acme/demo -p 'The sea' # no weights for a tokenizer
[ "$(count model.safetensors)" = 0 ] || fail "tokenize fetched weights"
good generate -m acme/demo -p 'The sea was' -n 8 --greedy # the rest comes now
cmp -s out said || fail "generate after tokenize"
whole acme/demo
mkdir -p acme/demo && cp "$model"/* acme/demo/ # a folder of that name wins
: >log
rm -rf cache
good tokenize -m acme/demo -p 'The sea'
[ ! -s log ] || fail "a folder of that name does not win"
rm -rf acme
good tokenize -m acme/demo@v2 -p 'The sea'
[ -f cache/models--acme--demo/refs/v2 ] || fail "no ref v2"

fresh
good convert -m acme/demo -o four --bits 4 --quiet
[ -f four/model.safetensors ] || fail "convert by id"

# ---- revisions, list, rm, prune
fresh
good pull acme/demo
good pull acme/demo@v2
whole acme/demo v2
v2=$(cat cache/models--acme--demo/refs/v2)
[ "$v2" != "$(cat cache/models--acme--demo/refs/main)" ] || fail "both revisions are one"
good pull "acme/demo@$v2" # a commit
[ "$(ls cache/models--acme--demo/refs)" = $'main\nv2' ] || fail "a commit became a ref"
good pull acme/gguf
good list
grep -qE '^acme/demo +main +[0-9a-f]{8} +8 +3.65 MiB +just now *$' out || fail "list: $(cat out)"
grep -qE '^acme/demo +v2 ' out || fail "list: $(cat out)"
good list --json
grep -q '"repo": "acme/gguf"' out || fail "list --json: $(cat out)"
grep -q '"complete": true' out || fail "list --json: $(cat out)"
good rm acme/demo@v2 --dry-run
grep -qF "acme/demo@v2: would free 10" out || fail "rm --dry-run: $(cat out)"
[ -e "cache/models--acme--demo/snapshots/$v2" ] || fail "rm --dry-run removed"
good rm "acme/demo@${v2:0:8}"
whole acme/demo
{ [ ! -e "cache/models--acme--demo/snapshots/$v2" ] && [ ! -e cache/models--acme--demo/refs/v2 ]; } || fail "rm left the revision"
good pull "acme/demo@$v2"
echo rest >cache/models--acme--demo/blobs/0123456789012345678901234567890123456789.incomplete
good list
grep -q 'ffai prune' err || fail "list does not tell of leftovers: $(cat err)"
good prune --dry-run
[ -e "cache/models--acme--demo/snapshots/$v2" ] || fail "prune --dry-run removed"
good prune
[ ! -e "cache/models--acme--demo/snapshots/$v2" ] || fail "prune left a revision without a name"
whole acme/demo
whole acme/gguf
good rm acme/demo acme/gguf
[ -z "$(find cache -path '*models--*')" ] || fail "rm left $(ls -A cache)"
good list
grep -q 'no models' err || fail "list of an empty cache: $(cat err)"
bad 1 'acme/demo is not in the cache' rm acme/demo
bad 1 'is not in the cache' rm ../../etc
bad 2 'which model' rm

# ---- GGUF: one file of several, by name, in parts
fresh
good pull acme/gguf
[ "$(basename "$(cat out)")" = model-Q4_K_M.gguf ] || fail "gguf: $(cat out)"
[ "$(find cache -name '*.gguf' | wc -l)" = 1 ] || fail "gguf: $(find cache -name '*.gguf')"
good pull acme/gguf:q8_0
[ "$(basename "$(cat out)")" = model-Q8_0.gguf ] || fail "gguf:q8_0: $(cat out)"
good pull acme/gguf:F32
[ "$(basename "$(cat out)")" = model-F32-00001-of-00002.gguf ] || fail "gguf:F32: $(cat out)"
[ -e "$(dirname "$(cat out)")/model-F32-00002-of-00002.gguf" ] || fail "gguf:F32: the second part is missing"
bad 1 'no GGUF file with "q3" in its name' pull acme/gguf:q3
bad 1 'no weights that ffai reads' pull acme/pickle

# ---- patterns and plans
fresh
good pull acme/demo --include '*.json' --exclude 'onnx/*' --exclude tokenizer.json --dry-run
[ ! -e cache ] || fail "--dry-run wrote"
grep -qE '^config.json +737 B +737 B$' out || fail "--dry-run: $(cat out)"
grep -qE 'onnx|tokenizer.json|safetensors' out && fail "--exclude: $(cat out)"
good pull acme/demo --include '*.json' --include 'pytorch_model.bin' --exclude 'onnx/'
[ "$(find cache -name pytorch_model.bin | wc -l)" = 1 ] || fail "--include"
[ "$(find cache -name onnx | wc -l)" = 0 ] || fail "--exclude of a folder"
bad 1 'no file matches the patterns' pull acme/demo --include '*.zip'
good pull acme/demo --dry-run --json
grep -q '"to_fetch": 3714' out || fail "--dry-run --json: $(cat out)"
good list
grep -q partial out || fail "list does not say partial: $(cat out)"

# ---- refusals, in one line each
bad 1 'acme/nothing: http://127.0.0.1' pull acme/nothing
bad 1 'no such repository; if it is private, set HF_TOKEN' pull acme/nothing
bad 1 'the repository has no revision "v9"' pull acme/demo@v9
for id in acme a/b/c ../demo acme/../demo 'acme/demo@' 'acme/demo@../../x' acme/demo.git 'acme--x/demo'; do bad 2 'is no model id' pull "$id"; done
HF_ENDPOINT=http://127.0.0.1:9 bad 1 'cannot be reached' generate -m acme/none -p x -n 1
HF_HUB_OFFLINE=1 bad 1 'HF_HUB_OFFLINE' pull acme/large
HF_ENDPOINT=http://127.0.0.1:9 bad 1 'http://127.0.0.1:9 cannot be reached' pull acme/demo
HF_ENDPOINT=ftp://x bad 1 'is no http or https address' pull acme/demo

# ---- offline with a full cache
fresh
good pull acme/demo
: >log
HF_HUB_OFFLINE=1 good pull acme/demo
HF_HUB_OFFLINE=1 good generate -m acme/demo -p 'The sea was' -n 8 --greedy
cmp -s out said || fail "offline"
[ ! -s log ] || fail "offline asked"

# ---- the token: to the hub only, from the variable or the file, in no message
fresh
serve token:hf_Secret1
bad 1 'set HF_TOKEN' pull acme/demo
HF_TOKEN=wrong bad 1 'does not accept the token' pull acme/demo
HF_TOKEN=hf_Secret1 good pull acme/demo -v
whole acme/demo
grep -q hf_Secret1 out err && fail "the token was printed"
grep -rq hf_Secret1 cache && fail "the token is in the cache"
[ "$(grep -c '^storage' log)" -gt 0 ] || fail "nothing came from the storage"
grep '^storage' log | grep -v 'auth=-' && fail "the token went to another host"
grep '^hub' log | grep -q 'auth=Bearer hf_Secret1' || fail "the token did not go to the hub"
fresh
mkdir -p home/.cache/huggingface
printf 'hf_Secret1\n' >home/.cache/huggingface/token
good pull acme/demo
fresh
printf 'hf_Secret1' >mytoken
rm home/.cache/huggingface/token
HF_TOKEN_PATH=$work/mytoken good pull acme/demo
(unset HF_HUB_CACHE; HF_TOKEN_PATH=$work/mytoken HF_HOME=$work/hfhome good pull acme/demo)
[ -f hfhome/hub/models--acme--demo/refs/main ] || fail "HF_HOME"
(unset HF_HUB_CACHE; HF_TOKEN_PATH=$work/mytoken good pull acme/demo)
[ -f home/.cache/huggingface/hub/models--acme--demo/refs/main ] || fail "the default cache"
HF_TOKEN=$'two\nlines' bad 1 'does not accept the token' pull acme/large
serve gated
fresh
bad 1 'is gated: accept its terms at http://127.0.0.1' pull acme/demo
HF_TOKEN=hf_Secret1 bad 1 'is gated and the token has no access' pull acme/demo

# ---- without the listing that a download leaves: what an index names must be there
mkdir -p root/acme/shards/main
echo '{}' >root/acme/shards/main/config.json
echo '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}' >root/acme/shards/main/model.safetensors.index.json
echo one >root/acme/shards/main/model-00001-of-00002.safetensors
echo two >root/acme/shards/main/model-00002-of-00002.safetensors
fresh
serve
good pull acme/shards
whole acme/shards
rm -r cache/models--acme--shards/trees
HF_HUB_OFFLINE=1 good pull acme/shards
rm cache/models--acme--shards/snapshots/*/model-00002-of-00002.safetensors
HF_HUB_OFFLINE=1 bad 1 'or not all of it' pull acme/shards
good pull acme/shards
whole acme/shards

# ---- a content that two repositories share, as newer versions of the Python package keep them: it goes with its last link
fresh
good pull acme/demo
hash=$(printf 'ab%.0s' $(seq 32))
etag=$(basename "$(readlink "cache/models--acme--demo/snapshots/$(cat cache/models--acme--demo/refs/main)/model.safetensors")")
mkdir -p cache/blobs/ab
mv "cache/models--acme--demo/blobs/$etag" "cache/blobs/ab/$hash"
ln -s "../../blobs/ab/$hash" "cache/models--acme--demo/blobs/$etag"
cp -a cache/models--acme--demo cache/models--acme--copy
printf '%s\n' "models--acme--demo/blobs/$etag" "models--acme--copy/blobs/$etag" "models--acme--demo/blobs/$etag" ../../../etc/passwd \
    "models--gone/blobs/$etag" >"cache/blobs/ab/$hash.refs"
HF_HUB_OFFLINE=1 good generate -m acme/copy -p 'The sea was' -n 8 --greedy
cmp -s out said || fail "shared content"
good rm acme/copy --dry-run
grep -q 'free 1[01][0-9] KiB' out || fail "rm --dry-run counts a shared content: $(cat out)"
good rm acme/copy
[ -f "cache/blobs/ab/$hash" ] || fail "rm took a content that another repository uses"
good rm acme/demo --dry-run
grep -q 'free 3.65 MiB' out || fail "rm --dry-run of the last user: $(cat out)"
good rm acme/demo
[ -z "$(find cache/blobs -type f ! -name '*.lock')" ] || fail "rm left the content: $(find cache/blobs)"

# ---- https: with a certificate that is trusted, and not without one
# certificate NAME SUBJECT-ALT: a self-signed one with its key in NAME.pem, alone in NAME.crt
certificate() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" -addext "subjectAltName=$2" -keyout "$1.key" -out "$1.crt" 2>/dev/null &&
        cat "$1.crt" "$1.key" >"$1.pem"
}
# tls_serve NAME FAULT...
tls_serve() {
    fresh
    serve "tls:$1.pem" "${@:2}"
    HF_ENDPOINT=https${HF_ENDPOINT#http}
}
if command -v openssl >/dev/null && certificate right IP:127.0.0.1 && certificate other DNS:example.org; then
    for v in CURL_CA_BUNDLE SSL_CERT_FILE REQUESTS_CA_BUNDLE; do
        tls_serve right token:hf_Secret1 page:3
        (export "$v=right.crt"; HF_TOKEN=hf_Secret1 good pull acme/demo; HF_TOKEN=hf_Secret1 good pull acme/large; [ $status = 0 ]) || fail "https with $v"
        whole acme/demo
        whole acme/large
        grep '^storage' log | grep -v 'auth=-' && fail "https: the token went to another host"
    done
    tls_serve right
    bad 1 'certificate is not trusted' pull acme/demo
    [ ! -s log ] || fail "https without trust: something was asked: $(cat log)"
    [ ! -e cache/models--acme--demo/refs ] || fail "https without trust: a ref was written"
    CURL_CA_BUNDLE=other.crt bad 1 'certificate is not trusted' pull acme/demo
    CURL_CA_BUNDLE=missing.crt bad 1 'CURL_CA_BUNDLE, SSL_CERT_FILE or REQUESTS_CA_BUNDLE names cannot be read' pull acme/demo
    HF_ENDPOINT=http${HF_ENDPOINT#https} bad 1 'cannot be reached' pull acme/demo # no http at that port
    tls_serve other # trusted, but another host's
    CURL_CA_BUNDLE=other.crt bad 1 'certificate is not trusted' pull acme/demo
    # nothing leads from https to http, with a token least of all
    tls_serve right plainstore
    CURL_CA_BUNDLE=right.crt HF_TOKEN=hf_Secret1 bad 1 'redirected to an address that is not followed' pull acme/large
    tls_serve right plainstore page:1 plainnext
    CURL_CA_BUNDLE=right.crt HF_TOKEN=hf_Secret1 bad 1 'the listing goes on at' pull acme/large
    grep -q '^storage' log && fail "https: the storage was asked in the clear: $(cat log)"
else
    echo "https: not tested, no openssl"
fi

# ---- a proxy: requests go there, but not for hosts of no_proxy
fresh
serve
# shellcheck disable=SC2097,SC2098
http_proxy=http://127.0.0.1:9 no_proxy='' bad 1 'cannot be reached' pull acme/demo
http_proxy=http://127.0.0.1:9 no_proxy=127.0.0.1 good pull acme/demo
whole acme/demo

# ---- what passes: busy servers, cut connections, no ranges, addresses that expire, pages
for faults in 'status:429:2:/api/ retry:1' 'status:503:2:/resolve/' 'status:500:3:/store/' 'cut:1000000:3:/store/' 'cut:0:2:/store/' 'norange' \
    'expire:2' 'page:1' 'cut:100:2:config.json' 'cut:20:1:/api/' 'cut:300000:2:/store/ status:502:2:/store/' 'norange cut:17000000:1:/store/'; do
    fresh
    # shellcheck disable=SC2086
    serve $faults
    good pull acme/large || cat log
    whole acme/large
done
fresh
serve page:2
good pull acme/demo
whole acme/demo

# ---- what does not: each says why, and the cache holds nothing wrong
# hopeless WORDS FAULT...
hopeless() {
    fresh
    serve "${@:2}"
    bad 1 "$1" pull acme/large
    [ ! -e cache/models--acme--large/refs ] || fail "$*: a ref was written"
    local blob
    for blob in cache/models--acme--large/blobs/*; do # a good one of the two files may be there
        case $blob in *.incomplete | *'*') continue ;; esac
        [ "$blob" = "cache/models--acme--large/blobs/$large" ] && [ "$(sha256sum <"$blob")" = "$large  -" ] && continue
        [ "${blob##*/}" = 0967ef424bce6791893e9a57bb952f80fd536e93 ] && [ "$(cat "$blob")" = '{}' ] && continue
        fail "$*: $blob was written"
    done
}
hopeless 'SHA-256 is' flip:99:/store/
hopeless 'git blob id is' flip:99:/resolve/
hopeless 'redirected' loop
hopeless 'names no commit' sha:../../../../etc
hopeless 'answered 418' status:418:9:/api/
zeros=0000000000000000000000000000000000000000
for name in '../../../evil' '/etc/evil' 'a/../../evil' 'a\\\\..\\\\evil' 'C:/evil' 'a//evil' './evil' 'evil\\u0000.json' 'evil\\n' '..' 'a/' ''; do
    printf '[{"type":"file","oid":"%s","size":3,"path":"%b"},{"type":"file","oid":"%s","size":3,"path":"config.json"}]' $zeros "$name" $zeros >listing
    hopeless 'no path inside a repository' listing:listing
done
[ -z "$(find "$work" -name 'evil*')" ] || fail "a hostile name was written: $(find "$work" -name 'evil*')"
printf '[{"type":"file","oid":"../../evil","size":3,"path":"config.json"}]' >listing
hopeless 'is no hash' listing:listing
printf '[{"type":"file","oid":"%s","size":3,"path":"model.safetensors","lfs":{"oid":"../evil","size":3}}]' $zeros >listing
hopeless 'is no hash' listing:listing
printf '[{"type":"file","oid":"%s","size":-3,"path":"config.json"}]' $zeros >listing
hopeless 'has no size' listing:listing
printf '[{"type":"file","oid":"%s","size":1,"path":"a"},{"type":"file","oid":"%s","size":1,"path":"a"}]' $zeros $zeros >listing
hopeless 'is there twice' listing:listing
printf '[{"type":"file","oid":"%s","size":134,"path":"model.safetensors","lfs":{"oid":"%s","size":1000000000000000}}]' $zeros \
    0000000000000000000000000000000000000000000000000000000000000000 >listing
hopeless 'has room for' listing:listing
printf '{"error":"x"}' >listing
hopeless 'listing is no array' listing:listing
printf '[[[' >listing
hopeless 'acme/large' listing:listing
# a file whose size is not that of the listing
printf '[{"type":"file","oid":"%s","size":134,"path":"model.safetensors","lfs":{"oid":"%s","size":39999999}}]' $zeros "$large" >listing
hopeless 'sends other bytes than were asked for' listing:listing

# ---- an interruption, and the rest later
for how in INT KILL; do
    fresh
    serve slow:5000000
    "$FFAI" pull acme/large >out 2>err &
    pull=$!
    sleep 1.2
    kill -$how $pull
    wait $pull
    rc=$?
    part=$(find cache -name '*.incomplete' -size +1M)
    if [ $how = INT ]; then
        [ $rc = 1 ] || fail "interrupted pull: status $rc"
        grep -q 'interrupted; what has come stays' err || fail "interrupted pull: $(cat err)"
        [ -n "$part" ] || fail "interrupted pull left nothing"
    fi
    [ ! -e cache/models--acme--large/refs ] || fail "interrupted pull wrote a ref"
    had=$(find cache -name '*.incomplete' -size +100k -printf '%s' | head -1)
    serve
    good pull acme/large
    whole acme/large
    [ $how = KILL ] || grep -qF "range=bytes=$had-" log || fail "did not go on at $had: $(cat log)"
done
# somebody else's beginning, a wrong one, one that is too long
blob=cache/models--acme--large/blobs/$large
for left in 'head -c 1000000 root/acme/large/main/model.safetensors' 'head -c 20000000 /dev/zero' 'head -c 50000000 /dev/zero' \
    'cat root/acme/large/main/model.safetensors' 'true'; do
    fresh
    mkdir -p cache/models--acme--large/blobs
    $left >"$blob.incomplete"
    good pull acme/large
    whole acme/large
done
# a blob that lost its end is noticed and made again
truncate -s 1000 "$blob"
bad 1 'model.safetensors' inspect -q -m acme/large # fetched again, and then no checkpoint
good pull acme/large
whole acme/large

# ---- two at once, and a lock that somebody holds
fresh
serve slow:5000000
"$FFAI" pull acme/large >out1 2>err1 &
one=$!
"$FFAI" pull acme/large >out2 2>err2 &
two=$!
sleep 0.7
bad 1 'another program is downloading it' rm acme/large
wait $one || fail "first of two: $(cat err1)"
wait $two || fail "second of two: $(cat err2)"
whole acme/large
[ "$(grep '^storage' log | sed 's/.*range=//' | sort | uniq -d | wc -l)" = 0 ] || fail "two at once fetched twice: $(cat log)"

# ---- on a terminal: how far, how fast, how long; Ctrl-C
fresh
serve slow:5000000
printf 'expect acme/large: 0/2 files\nexpect MiB/s, 0:0\nexpect left\nexpect 1/2 files\nexpect fetched 2 files, 38.1 MiB\nend\n' |
    "$FFAI_BUILD_DIR/pty_tool" "$FFAI" pull acme/large >out || fail "progress on a terminal: $(cat out)"
whole acme/large
fresh
printf 'expect MiB/s\nsend \\x03\nexpect interrupted; what has come stays\nend\n' |
    "$FFAI_BUILD_DIR/pty_tool" "$FFAI" generate -m acme/large -p x >out
[ $? = 1 ] || fail "Ctrl-C on a terminal: $(cat out)"

# ---- quiet, help
serve
fresh
good pull acme/demo --quiet
[ ! -s err ] || fail "--quiet: $(cat err)"
for c in pull list rm prune; do
    good $c --help
    grep -q "^usage: ffai $c" out || fail "$c --help"
done
[ $status = 0 ] && echo ok
exit $status
