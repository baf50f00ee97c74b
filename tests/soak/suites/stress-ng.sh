# Every stressor of its class for file systems, one after the other, verifying what it can.
#! stress-ng: apt-get install stress-ng
stress-ng --class filesystem --sequential 2 --verify --timeout 2 --temp-path "$PWD" --metrics-brief \
    > ../stress-ng.out 2>&1 || true
grep -q 'successful\|unsuccessful' ../stress-ng.out
sed -n 's/^stress-ng: fail: *\[[0-9]*\] \([a-z0-9-]*\):.*/FAILED \1/p' ../stress-ng.out | sort -u
