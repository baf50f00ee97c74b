#!/bin/bash
# What a request costs: the same nginx servers behind a farm's data path, behind
# one HAProxy, and bare.  All in one run, taking turns; wrk in a client's namespace.
#   requests.sh TABLE       TABLE: the example `farm_table` of crates/net
# Prints "metric TAB value TAB unit": medians over the rounds, and medians of the
# ratios of each round.  Variables: ROUNDS SECS CONNS ONLY="NAME ..."
# CAP=PERCENT gives every machine (server or proxy) that share of one processor, so
# that machines are the limit and not the host.
set -u
TABLE=$(realpath "$1"); P=evkb; ROUNDS=${ROUNDS:-5}; SECS=${SECS:-3}; CONNS=${CONNS:-48}; CAP=${CAP:-0}
D=$(mktemp -d /tmp/farm-requests.XXXXXX); RAW=$D/raw; : >"$RAW"
VIP=10.77.0.100; SERVERS="1 2 3"
ns() { ip netns exec "$P-$1" "${@:2}"; }
mac() { printf '02:5e:00:00:00:%02x' "$1"; }
group() { echo "/sys/fs/cgroup/cpu/$P-$1"; }

cap() { # NAME PID...
  [ "$CAP" = 0 ] && return
  local g p; g=$(group "$1"); mkdir -p "$g"
  echo 20000 >"$g/cpu.cfs_period_us"; echo $((CAP * 200)) >"$g/cpu.cfs_quota_us" || exit 1
  for p in "${@:2}"; do echo "$p" >"$g/cgroup.procs"; done
}
finish() {
  local f i g
  for f in "$D"/*.pid; do [ -s "$f" ] && kill "$(cat "$f")" 2>/dev/null; done
  sleep 0.5
  for i in sw s1 s2 s3 px c; do ip netns del "$P-$i" 2>/dev/null; done
  for i in s1 s2 s3 px; do g=$(group $i); [ -d "$g" ] && rmdir "$g"; done
  rm -rf "$D"
}
trap finish EXIT
host() { # NAME MAC ADDRESS
  ip netns add "$P-$1"; ns "$1" ip link set lo up
  ns "$1" ip link add eth0 address "$2" type veth peer name "to-$1" netns "$P-sw"
  ns sw ip link set "to-$1" master br0 up
  ns "$1" ip link set eth0 up; ns "$1" ip addr add "$3/16" dev eth0
  ns "$1" sysctl -qw net.ipv4.ip_local_port_range="1024 65000" net.ipv4.tcp_tw_reuse=1
}
build() {
  ip netns add $P-sw
  ns sw ip link add br0 type bridge stp_state 0 forward_delay 0; ns sw ip link set br0 up
  # A switch of metal has no packet filters; this one would run its frames through them.
  for f in /proc/sys/net/bridge/bridge-nf-call-*; do
    [ -e "$f" ] && ns sw sh -c "echo 0 >$f"
  done
  for i in $SERVERS; do
    host s"$i" "$(mac "$i")" 10.77.0.1"$i"; mkdir -p "$D/$i"
    cat >"$D/$i/nginx.conf" <<EOF
worker_processes 1; pid $D/s$i.pid; error_log $D/$i/err crit; events { worker_connections 4096; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_body_temp_path $D/$i/b;
 proxy_temp_path $D/$i/p; fastcgi_temp_path $D/$i/f; uwsgi_temp_path $D/$i/u; scgi_temp_path $D/$i/s;
 server { listen 80 backlog=4096; location / { return 200 "s$i\n"; } } }
EOF
    ns s"$i" nginx -c "$D/$i/nginx.conf" -p "$D/$i"
  done
  host px 02:5e:00:00:00:90 10.77.0.90; host c 02:5e:00:00:00:c1 10.77.1.1
  { printf 'global\n maxconn 4000\n nbthread 1\ndefaults\n timeout connect 2s\n timeout client 60s\n'
    printf ' timeout server 60s\n option http-keep-alive\n http-reuse always\n'
    for l in "http 80" "tcp 81"; do set -- $l
      printf 'listen %s\n mode %s\n bind 10.77.0.90:%s\n balance roundrobin\n' $1 $1 $2
      for i in $SERVERS; do printf ' server s%s 10.77.0.1%s:80\n' "$i" "$i"; done
    done; } >"$D/haproxy.cfg"
  ns px haproxy -D -f "$D/haproxy.cfg" -p "$D/px.pid"
  for i in $SERVERS; do m=$(cat "$D/s$i.pid"); cap s"$i" "$m" $(pgrep -P "$m"); done
  cap px $(cat "$D/px.pid")
}
# The farm: delivery, whether connections are known, and who takes part; the first leads.
farm() { # DELIVERY yes|no SERVER...
  local i j members share leader n
  plain
  for i in "${@:3}"; do
    members=""; share=""; n=0
    for j in "${@:3}"; do
      if [ "$j" = "$i" ]; then share+=,me; else
        members+=,$(mac "$j")/10.77.0.1$j; share+=,$n; n=$((n + 1)); fi
    done
    [ "$i" = "$3" ] && leader=yes || leader=no
    ns s"$i" "$TABLE" vip=$VIP/16 port=80 delivery="$1" connections="$2" leader=$leader \
      members="${members#,}" share="${share#,}" || exit 1
  done
  ns c ip neigh flush dev eth0
}
plain() {
  local i
  for i in $SERVERS; do
    ns s"$i" "$TABLE" vip=$VIP/16 delivery=directed share=none || exit 1
  done
}
pids() { local i; for i in $SERVERS; do pgrep -P "$(cat "$D/s$i.pid")"; done; cat "$D/px.pid"; }
spent() { local p t=0 x; for p in $(pids); do read -r x _ <"/proc/$p/schedstat"; t=$((t + x)); done; echo $t; }
# NAME URL...: always three clients, with a third of the connections each, so that
# the servers have their requests in equal pieces whoever is between.
ask() {
  local before after i urls=("${@:2}"); before=$(spent)
  for i in 0 1 2; do
    ns c bash -c "wrk -t1 -c$((CONNS / 3)) -d${SECS}s ${urls[i % ${#urls[@]}]}; times" \
      >"$D/out.$i" &
  done
  wait $(jobs -p); cat "$D"/out.* >"$D/out"; rm "$D"/out.*
  after=$(spent)
  awk -v name="$1" -v cpu=$((after - before)) '
    /Requests.sec/ { rate += $2 } /requests in/ { n += $1 }
    /^[0-9]+m[0-9.]+s [0-9]+m[0-9.]+s$/ && ++k % 2 == 0 { split($1, u, /[ms]/); split($2, s, /[ms]/); t += u[1]*60 + u[2] + s[1]*60 + s[2] }
    END { if (!n) { print name ": no request was answered" > "/dev/stderr"; exit 1 }
      print name, rate, cpu / 1000 / n, (cpu / 1000 + t * 1e6) / n }' "$D/out" >>"$RAW" || exit 1
}
wanted() { [ -z "${ONLY:-}" ] || [[ " $ONLY " = *" $1 "* ]]; }
contender() { # NAME
  wanted "$1" || return
  case $1 in
    one) plain; ask one http://10.77.0.11 ;;
    three) plain; ask three http://10.77.0.11 http://10.77.0.12 http://10.77.0.13 ;;
    farm_stateless) farm directed no 1 2 3; ask "$1" http://$VIP ;;
    farm_aware) farm directed yes 1 2 3; ask "$1" http://$VIP ;;
    farm_multicast) farm multicast yes 1 2 3; ask "$1" http://$VIP ;;
    haproxy_http) plain; ask "$1" http://10.77.0.90 ;;
    haproxy_tcp) plain; ask "$1" http://10.77.0.90:81 ;;
  esac
}
ALL="one three farm_stateless farm_aware farm_multicast haproxy_http haproxy_tcp"
median() { sort -g | awk '{ a[NR] = $1 } END { print NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'; }
column() { awk -v n="$1" -v c="$2" '$1 == n { print $c }' "$RAW"; }
ratio() { paste <(column "$1" "$3") <(column "$2" "$3") | awk '{ printf "%.3f\n", $1 / $2 }' | median; }
build
for round in $(seq "$ROUNDS"); do
  # Whoever comes first warms the caches for the others, so that it is another each time.
  for k in $(seq 0 6); do set -- $ALL; shift $(((k + round) % 7)); contender "$1"; done
done
for name in $ALL; do
  wanted "$name" || continue
  printf '%s_rate\t%s\treq/s\n' "$name" "$(column "$name" 2 | median)"
  printf '%s_server_cpu\t%s\tus/req\n' "$name" "$(column "$name" 3 | median)"
  printf '%s_all_cpu\t%s\tus/req\n' "$name" "$(column "$name" 4 | median)"
done
for name in farm_stateless farm_aware farm_multicast; do
  wanted $name || continue
  # What is more than without a balancer, whoever was charged for it, as if the servers had paid.
  wanted three && printf 'cpu_%s_charged_to_three\t%s\tx\n' $name \
    "$(paste <(column three 3) <(column three 4) <(column $name 4) |
      awk '{ printf "%.3f\n", ($1 + $3 - $2) / $1 }' | median)"
  for base in one three haproxy_http haproxy_tcp; do
    wanted $base || continue
    printf 'cpu_%s_to_%s\t%s\tx\n' $name $base "$(ratio $name $base 3)"
    printf 'all_cpu_%s_to_%s\t%s\tx\n' $name $base "$(ratio $name $base 4)"
    printf 'rate_%s_to_%s\t%s\tx\n' $name $base "$(ratio $name $base 2)"
  done
done
