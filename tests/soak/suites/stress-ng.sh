# Every stressor of its class for file systems, one after the other, verifying what it can.
#! stress-ng: apt-get install stress-ng
out=../stress-ng.out
stress-ng --class filesystem --sequential 2 --verify --timeout 2 --temp-path "$PWD" \
    --metrics-brief > $out 2>&1 || true
grep -q ' run completed' $out
{
    sed -n 's/^stress-ng: fail: *\[[0-9]*\] \([a-z0-9-]*\):.*/FAILED \1/p' $out
    sed -n 's/^stress-ng: error:.*(stress-ng-\([a-z0-9-]*\)).*/FAILED \1/p' $out
} | sort -u
echo "$(grep '^stress-ng: metrc:' $out | grep -c '[0-9]$') stressors, $(grep -o '[a-z]* run completed' $out)"
