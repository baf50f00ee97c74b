# What every system call must answer, as users of three kinds. Remounting is left out.
#! pjdfstest: cargo install pjdfstest
cat > ../pjdfstest.toml <<END
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.005
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
END
chmod 755 .
pjdfstest -c ../pjdfstest.toml -p "$PWD" -s "$ELSEWHERE" > ../pjdfstest.out 2>&1 || true
grep -q ' ok$' ../pjdfstest.out
sed -n 's/^\([a-z][^ ]*\) *FAILED$/FAILED \1/p' ../pjdfstest.out
count() { grep -c " $1\$" ../pjdfstest.out || true; }
echo "$(count ok) passed, $(count FAILED) failed, $(count skipped) skipped"
