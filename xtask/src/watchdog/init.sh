#!/bin/sh
# The first process of the guest of `cargo xtask soak watchdog`: a node that is primary of a mirror,
# and what is done to it in one case. What it reports begins with `MARK`; who reads that judges.

# The time of the watchdog, in seconds.
TIMEOUT=10

mark() { echo "MARK $*"; }
# Ends the machine by its switch, not by its watchdog.
off() { mark "$*"; sync; poweroff -f; sleep 1000; }
evenkeel() { /evenkeel --root / "$@" </dev/null; }

# Waits for a command to succeed: much longer than it takes on any machine.
until_done() {
    left=600
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { tail -n 30 /daemon.log; evenkeel status; off "failed: $*"; }
        sleep 0.5
    done
}

shows() { evenkeel status --json | tr -d ' \n' | grep -q "$1"; }
serves() { shows '"role":"ALONE"' && pidof tail >/dev/null; }
is_armed() { shows '"state":"armed"'; }
was_closed() { dmesg | grep -q 'did not stop'; }
is_ready() { shows '"state":"ready"'; }
# The daemon, and not the replicator, which is of the same program.
daemon() { cat /daemon.pid; }

start_daemon() {
    /evenkeel --root / daemon </dev/null >>/daemon.log 2>&1 &
    echo $! >/daemon.pid
    until_done shows '"node":"node1"'
}

prepare() {
    busybox mount -t proc none /proc
    busybox --install -s /bin
    mount -t sysfs none /sys
    mount -t devtmpfs none /dev
    mkdir -p /dev/pts /sys/fs/cgroup /run /srv /var /tmp
    mount -t cgroup2 none /sys/fs/cgroup
    for place in /run /srv /tmp; do mount -t tmpfs none $place; done
    mount -t tmpfs -o size=400m none /var
    for module in fuse watchdog dummy; do insmod /modules/$module.ko || off "failed: $module"; done
    insmod /modules/i6300esb.ko $1 || off "failed: i6300esb"
    ip link set lo up
    ip link add lan0 type dummy && ip addr add 10.77.0.11/24 dev lan0 && ip link set lan0 up
    hostname node1
    mkdir -p /srv/shop /run/lab /etc/evenkeel/modules
    # Two nodes without keys, which only a lab may be.
    touch /run/lab/evenkeel
    cat >/etc/evenkeel/cluster.toml <<END
cluster = "guest"
node = [{ name = "node1", addresses = { lan0 = "10.77.0.11" } },
        { name = "node2", addresses = { lan0 = "10.77.0.12" } }]
isolation = { ping = [] }
watchdog = { timeout = "${TIMEOUT}s" }
END
    cat >/etc/evenkeel/modules/shop.toml <<END
module = "shop"
kind = "mirror"
replicate = ["/srv/shop"]
vip = [{ address = "10.77.0.50/24" }]
command = [{ name = "app", run = ["/bin/tail", "-f", "/dev/null"] }]
END
    mark "booted $(uname -r)"
}

# A primary without its peer, whose watchdog runs.
serve() {
    start_daemon
    until_done is_ready
    until_done evenkeel force-primary shop --node node1
    until_done serves
    until_done is_armed
    evenkeel status --json | tr -d ' \n' | grep -o '"watchdog":{[^}]*}'
    mark armed
}

# Longer than the watchdog waits.
outlast() { sleep $((3 * TIMEOUT)); mark "$*"; }

kept() {
    serve
    outlast fed
    # A configuration that is applied has the daemon start anew in its process.
    echo 'health = { port = 7622 }' >>/etc/evenkeel/cluster.toml
    evenkeel apply --without node2 || off "failed: apply"
    until_done shows '"number":1'
    # So says the kernel when the device is closed without its farewell, as by an exec.
    until_done was_closed
    until_done is_armed
    serves || off "failed: what ran does not run after the exec"
    outlast executed
    kill -9 "$(daemon)"
    start_daemon
    until_done is_armed
    serves || off "failed: what ran does not run after the daemon's death"
    outlast followed
    kill "$(daemon)"
    until_done test ! -d "/proc/$(daemon)"
    pidof tail >/dev/null || off "failed: the application went with its daemon"
    outlast stopped
    off end
}

frozen() {
    serve
    kill -STOP "$(daemon)"
    mark frozen
    sleep 1000
}

killed() {
    serve
    kill -9 "$(daemon)"
    mark killed
    sleep 1000
}

# A node that loses its role, as it cannot write its record, and whose application cannot be killed.
stuck() {
    serve
    mkdir /freezer
    mount -t cgroup -o freezer none /freezer && mkdir /freezer/stuck || off "failed: freezer"
    pidof tail >/freezer/stuck/cgroup.procs
    echo FROZEN >/freezer/stuck/freezer.state
    dd if=/dev/zero of=/var/fill bs=1M 2>/dev/null
    evenkeel stop shop --node node1
    until_done shows '"code":"watchdog-starves"'
    kill -0 "$(daemon)" || off "failed: the daemon is gone"
    mark starves
    sleep 1000
}

# A device that nothing stops once it runs: the end of the daemon resets the machine.
endless() {
    serve
    kill "$(daemon)"
    until_done test ! -d "/proc/$(daemon)"
    mark stopped
    sleep 1000
}

# The kernel hands on what it does not know: the case, by its name.
case "$1" in
kept | frozen | killed | stuck) prepare ;;
endless) prepare nowayout=1 ;;
*) off "failed: there is no case $1" ;;
esac
"$1"
off "failed: it came to its end"
