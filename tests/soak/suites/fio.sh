# Random writes by several jobs through each way of input and output, all of it read back and
# verified.
#! fio: apt-get install fio
run() {
    fio --name="$1" --rw=randwrite --bsrange=512-64k --size=48m --numjobs=2 --verify=crc32c \
        --verify_fatal=1 --do_verify=1 --group_reporting --randseed=7 "${@:2}" > "../fio-$1.out" 2>&1 \
        || echo "FAILED $1"
    rm -f "$1".*
}
run psync --ioengine=psync --fsync=64
run io_uring --ioengine=io_uring --iodepth=16
run mmap --ioengine=mmap --bsrange=4k-64k
run direct --ioengine=io_uring --direct=1 --bsrange=4k-64k --iodepth=16
run append --ioengine=psync --rw=write --file_append=1
echo "$(cat ../fio-*.out | grep -c "err= 0") groups of jobs verified"
