# Random reads, writes, mappings, truncations, holes and copies of one file, each read verified.
#! fsx: cargo install fsx
cat > ../fsx.toml <<END
flen = 1000000
[opsize]
max = 100000
[weights]
close_open = 2
invalidate = 1
truncate = 5
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 3
punch_hole = 5
sendfile = 5
posix_fadvise = 2
copy_file_range = 5
END
mkdir -p ../fsx-artifacts
for seed in 1 2 3 4 5 6; do
    fsx -q -f ../fsx.toml -P ../fsx-artifacts -N 30000 -S $seed file-$seed || echo "FAILED seed-$seed"
done
