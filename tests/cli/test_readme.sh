#!/usr/bin/env bash
# What README.md shows is what happens: "First steps" is replayed as a transcript, every line of "Use" runs, against the hub of tests/hub that serves the
# carried model. And each command has a --help with usage and example that fits its width.
#   FFAI=build/release/ffai FFAI_BUILD_DIR=build/release tests/cli/test_readme.sh [--print]     --print: what "First steps" should show
set -uo pipefail
source=$(realpath "$(dirname "$0")/../..")
build=$(realpath "${FFAI_BUILD_DIR:?}") program=$(realpath "${FFAI:?}")
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
status=0
fail() { echo "FAIL: $*"; status=1; }
for v in HF_HOME HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_TOKEN_PATH HF_HUB_OFFLINE TRANSFORMERS_OFFLINE HUGGINGFACE_HUB_CACHE HF_HUB_CACHE http_proxy all_proxy ALL_PROXY; do
    unset $v
done
mkdir -p bin home root/acme/novels-6m/main root/ORG/NAME/main
cp "$source"/models/ffai-demo-6m/* root/acme/novels-6m/main/
cp "$source"/models/ffai-demo-6m/* root/ORG/NAME/main/
ln -s "$program" bin/ffai
ln -s "$program" ffai
export HOME=$work/home NO_COLOR=1 PATH=$work/bin:$PATH no_proxy=127.0.0.1
"$build/hub_tool" root ports log &
server=$!
for _ in $(seq 200); do [ ! -f ports ] || break; sleep 0.05; done
export HF_ENDPOINT
HF_ENDPOINT=http://127.0.0.1:$(cut -d' ' -f1 ports)

# ---- First steps: text as it stands; fractions and speeds are those of the machine where it was run
section() { sed -n "/^## $1\$/,/^## /p" "$source/README.md" | sed -n 's/^    //p'; }
section 'First steps' >steps
[ "$(grep -c '^\$ ffai' steps)" -ge 10 ] || fail "First steps has $(grep -c '^\$ ffai' steps) commands"
# Numbers with a fraction and what pads them become one mark.
plain() { sed -E "s#$work/home#~#g; s/[0-9]+(\.[0-9]+)? ([KMG]?i?B(\/s)?|s)\b/#/g; s/[-+]?[0-9]+\.[0-9]+/#/g; s/ +/ /g; s/ +\$//" | grep .; }
grep '^\$ ' steps | sed 's/^\$ //' >commands
while IFS= read -r line; do
    printf '$ %s\n' "$line"
    bash -c "$line" 2>&1 </dev/null
    rc=$?
    [ $rc = 0 ] || echo "[$rc]"
done <commands >ran
# a text ends without a line end: the next command begins a line of its own in README
sed -E 's/(.)\$ ffai/\1\n$ ffai/' ran >shown
if [ "${1:-}" = --print ]; then
    sed "s#$work/home#~#g; s/^/    /" shown
    exit
fi
diff <(plain <steps) <(plain <shown) || fail "README.md, First steps: < what it shows, > what happens"

# ---- Use: every line
model=$source/models/ffai-demo-6m
echo '{"type": "object", "properties": {"name": {"enum": ["Ann", "Bob"]}}, "required": ["name"], "additionalProperties": false}' >person.json
echo 'It was late in the evening.' >story.txt
cp "$source/docs/demo-model.md" text.txt
echo '{"messages": [{"role": "user", "content": "Hi"}]}' >chat.json
printf '"Hello"\n"World"\n' >texts.jsonl
mkdir shape && cp "$model/config.json" shape/
n=0
while IFS= read -r line; do
    line=${line%% \#*}
    case $line in
    *ADAPTER* | *'--device cuda'*) continue ;; # need an adapter of the model, a GPU: engine.test_lora, make test-cuda
    esac
    line=${line//MODEL/$model}
    line=${line//-m DIR/-m shape}
    line=${line//-o DIR/-o converted}
    line=${line//BASE/fast --precision exact --ctx 128}
    line=${line//--calibrate TEXT/--calibrate text.txt}
    line=${line//-p 512,2048 -n 128/-p 16,32 -n 4 -r 1} # the same, smaller
    line=${line//--synthetic affine4g64/--synthetic affine4g64 -p 16 -n 4 -r 1}
    line=${line//--ctx 8192/--ctx 512}
    n=$((n + 1))
    out=$(bash -c "timeout 100 $line" 2>&1 <<<'/quit' | tr -d '\0') || fail "README.md, Use: $line: $out"
done < <(section Use | sed 's/ *$//')
[ $n -ge 20 ] || fail "Use has $n commands"

# ---- each command's --help
for c in $(ffai help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    ffai "$c" --help >help 2>err || fail "$c --help: $(cat err)"
    [ ! -s err ] || fail "$c --help: $(cat err)"
    grep -q "^usage: ffai $c" help || fail "$c --help has no usage"
    [ "$c" = version ] || [ "$c" = devices ] || grep -q "^  ffai $c" help || fail "$c --help has no example"
    [ "$(awk '/^Examples/ {exit} NF > 1 {if (length > n) n = length} END {print n}' help)" -le 100 ] || fail "$c --help is wider than it should be"
done
[ $status = 0 ] && echo "ok: $(wc -l <commands) steps, $n lines of Use"
exit $status
