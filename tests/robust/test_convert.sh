#!/usr/bin/env bash
# ffai convert and perplexity under bad circumstances: places that cannot be written, full disks, kills in the middle,
# wrong options. Nothing half done may be left under the name that was asked for.
# shellcheck source=tests/robust/common.sh
. "$(dirname "$0")/common.sh"

# nothing NAME: no result and no remains of one
nothing() {
    local left
    left=$(find "$tmp" -maxdepth 1 -name 'to*' | head -3)
    [ -z "$left" ] || fail "$1: left behind: $left"
    rm -rf "$tmp"/to*
}
run="$FFAI convert -m $model -o $tmp/to"

check 'no output folder' 2 '-o DIR' "$FFAI convert -m $model"
check 'no model' 2 '-m MODEL' "$FFAI convert -o $tmp/to"
check 'a model that is not there' 1 'no/such' "$FFAI convert -m /no/such -o $tmp/to"
check 'a place that is not there' 1 'No such file' "$FFAI convert -m $model -o $tmp/no/such/to"
check 'a file in the way' 1 'exists already' "touch $tmp/file; $FFAI convert -m $model -o $tmp/file"
check 'a folder in the way' 1 'exists already' "mkdir $tmp/full; touch $tmp/full/x; $FFAI convert -m $model -o $tmp/full"
check 'a dangling link in the way' 1 'exists already' "ln -s /no/such $tmp/link; $FFAI convert -m $model -o $tmp/link"
check 'bits that affine lacks' 1 '7 bits' "$run --bits 7"
check 'bits that mxfp4 lacks' 1 'mxfp4 has 4 bits' "$run --mode mxfp4 --bits 3"
check 'groups that affine lacks' 1 'groups of 48' "$run --bits 4 --group-size 48"
check 'both directions' 1 'dequantize' "$run --bits 4 --dequantize"
check 'a rule without an effect' 2 "--rule" "$run --rule down_proj"
check 'a rule with nonsense' 2 "bites" "$run --rule 'down_proj=bites:4'"
check 'a rule that is no expression' 1 'rule' "$run --rule '(=bits:4'"
check 'a size that is none' 2 '--shard-size' "$run --shard-size lots"
check 'a text that is not there' 1 'no/text' "$run --calibrate /no/text"
check 'a text too short' 1 'too short' "echo a >$tmp/short; $run --calibrate $tmp/short"
check 'a budget without a text' 1 'text to calibrate' "$run --bits 4 --bits-per-weight 4"
nothing 'wrong options'

check 'a limit on file sizes' 1 'File too large' "trap '' XFSZ; ulimit -f 1000; $run"
nothing 'a limit on file sizes'
if [ "$(id -u)" != 0 ]; then
    mkdir "$tmp/locked" && chmod a-w "$tmp/locked"
    check 'a folder that may not be written' 1 'Permission denied' "$FFAI convert -m $model -o $tmp/locked/to"
fi
if mkdir "$tmp/small" && mount -t tmpfs -o size=2m none "$tmp/small" 2>/dev/null; then
    check 'a full disk' 1 'No space left' "$FFAI convert -m $model -o $tmp/small/to"
    [ -z "$(ls "$tmp/small")" ] || fail "a full disk: $(ls "$tmp/small") was left"
    umount "$tmp/small"
fi

# killed at any moment: the result is whole or not there
whole=$("$FFAI" convert -q -m "$model" -o "$tmp/ref" --dequantize --dtype f32 && wc -c <"$tmp/ref/model.safetensors")
for ms in 005 010 020 030 045 060 080 110 150 200; do
    "$FFAI" convert -q -m "$model" -o "$tmp/to" --dequantize --dtype f32 &
    pid=$!
    sleep "0.$ms"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    if [ -e "$tmp/to" ]; then
        for f in model.safetensors config.json; do
            cmp -s "$tmp/ref/$f" "$tmp/to/$f" || fail "killed after 0.$ms s: half a model ($f)"
        done
    fi
    rm -rf "$tmp"/to*
done
[ "${whole:-0}" -gt 20000000 ] || fail "the reference has $whole bytes"

# what a killed conversion has left is gone after the next one of that name; what others may still be at work on is not
sleep 0.01 & # a process that is gone soon, and whose number is not taken again at once
gone=$!
wait $gone
mkdir -p "$tmp/to.partial-$gone-0/1_Pooling" "$tmp/to.partial-$$-0" "$tmp/to.partial-x-0" "$tmp/to2.partial-$gone-0" "$tmp/to.partial-$gone-3"
echo x >"$tmp/to.partial-$gone-0/1_Pooling/config.json"
exec 9<"$tmp/to.partial-$gone-3" # of a process that is not to be seen from here
flock -x 9
$run -q || fail "beside remains"
exec 9<&-
left=$(cd "$tmp" && printf '%s\n' to* | sort)
stay=$(printf '%s\n' to to.partial-$$-0 "to.partial-$gone-3" to.partial-x-0 "to2.partial-$gone-0" | sort) # numbers of any length
[ "$left" = "$stay" ] || fail "remains: $left"
rm -rf "$tmp"/to*

# interrupted: cleaned up
"$FFAI" convert -q -m "$model" -o "$tmp/to" --dequantize --dtype f32 2>"$tmp/err" &
pid=$!
sleep 0.02
kill -INT $pid 2>/dev/null
wait $pid
rc=$?
[ $rc = 0 ] || nothing 'interrupted'
rm -rf "$tmp"/to*

# two at a time to one name: one wins, or each says why not; the result is whole
"$FFAI" convert -q -m "$model" -o "$tmp/to" 2>/dev/null &
"$FFAI" convert -q -m "$model" -o "$tmp/to" 2>/dev/null
wait
cmp -s "$model/model.safetensors" "$tmp/to/model.safetensors" || "$FFAI" inspect -m "$tmp/to" >/dev/null || fail 'two at a time'
rm -rf "$tmp"/to*

printf 'The old house stood at the end of the road, and nobody had lived in it for years.\n' >"$tmp/text"
ppl="$FFAI perplexity -m $model --file $tmp/text"
check 'an empty text' 1 'foretell' "$FFAI perplexity -m $model -p ''"
check 'a window of nothing' 2 '--ctx 1' "$ppl --ctx 1"
check 'a stride beyond the window' 2 '--stride' "$ppl --ctx 16 --stride 17"
check 'a base that is not there' 1 'no/such' "$ppl --kld /no/such"
check 'logits that are none' 1 'not a .npy' "cp $tmp/text $tmp/x.npy; $ppl --kld $tmp/x.npy"
check 'logits of another text' 1 'this text' "$ppl --ctx 16 --windows 1 -q --save-logits $tmp/y.npy >/dev/null; $ppl --kld $tmp/y.npy"
check 'a full disk for logits' 1 '/dev/full' "$ppl --save-logits /dev/full"
"$FFAI" perplexity -m "$model" --file "$tmp/text" --save-logits "$tmp/z.npy" >/dev/null || fail 'saving logits'
"$FFAI" perplexity -m "$model" --file "$tmp/text" --kld "$tmp/z.npy" >"$tmp/out" || fail 'reading logits'
grep -q '^same top token    100.000 %' "$tmp/out" || fail "saved logits differ: $(cat "$tmp/out")"

finish
