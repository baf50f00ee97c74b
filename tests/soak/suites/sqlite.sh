# A database in every journal mode, with and without a mapping, written by two at once.
#! sqlite3: apt-get install sqlite3
for mode in delete truncate persist memory wal off; do
    for map in 0 268435456; do
        case=$mode-$map
        begin="PRAGMA busy_timeout = 60000; PRAGMA mmap_size = $map; PRAGMA journal_mode = $mode;"
        sqlite3 $case "$begin CREATE TABLE t (a INTEGER PRIMARY KEY, b, c); CREATE INDEX i ON t (b);" \
            > /dev/null
        for writer in 1 2; do
            for round in $(seq 60); do
                echo "BEGIN IMMEDIATE; INSERT INTO t (b, c) SELECT random(), randomblob(600) FROM"
                echo "(WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 40)"
                echo "SELECT x FROM n); DELETE FROM t WHERE a % 7 = $writer; COMMIT;"
            done | sqlite3 -cmd "$begin" $case > /dev/null 2> ../sqlite-$case-$writer.err &
        done
        wait
        sqlite3 $case "PRAGMA mmap_size = $map; VACUUM;" > /dev/null
        said=$(sqlite3 $case "PRAGMA integrity_check; SELECT count(*) > 1000 FROM t;" | tr '\n' ' ')
        test "$said" = "ok 1 " && ! grep -q . ../sqlite-$case-[12].err || echo "FAILED $case"
    done
done
echo "$(sqlite3 wal-0 "SELECT count(*) FROM t;") rows in one of 12 databases"
