#!/usr/bin/env bash
# Breaks a real cluster in network namespaces and prints, for each failure, what is promised and what
# viewers measured: three control+origin nodes, two edges in one region, one in another, each in a
# namespace of its own on one bridge, with a small disk of its own. Needs root and iproute2.
#
#   sudo scripts/faults.sh                    every failure, 10 runs each: about half an hour
#   sudo RUNS=3 scripts/faults.sh home edge   some of them: home ingest leader edge stop mute disk drain rolling
#
# PROFILE=dev uses the build that `make demo` made. Logs stay in FAULTS_DIR if that is set.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
case $profile in dev) folder=debug ;; *) folder=$profile ;; esac
bin=${CARGO_TARGET_DIR:-target}/$folder
if [ "$(id -u)" != 0 ]; then
  echo "faults: needs root, for network namespaces" >&2
  exit 1
fi
if [ -z "${NO_BUILD:-}" ]; then
  cargo build --locked --profile "$profile" -p node
  cargo build --locked --profile "$profile" -p tests --example faults
fi

nodes=(o1:11 o2:12 o3:13 e1:21 e2:22 e3:23)
work=${FAULTS_DIR:-$(mktemp -d)}
mkdir -p "$work"
lab=
cleanup() {
  # The lab ends its nodes when it ends.
  if [ -n "$lab" ]; then kill -TERM "$lab" 2>/dev/null || true; wait "$lab" 2>/dev/null || true; fi
  for node in "${nodes[@]}"; do
    local ns=tw-${node%%:*}
    for pid in $(ip netns pids "$ns" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null || true; done
    ip netns del "$ns" 2>/dev/null || true
    umount "$work/data/${node%%:*}" 2>/dev/null || true
  done
  ip link del tw-br 2>/dev/null || true
  if [ -z "${FAULTS_DIR:-}" ]; then rm -rf "$work"; fi
}
trap cleanup EXIT

ip link add name tw-br type bridge
ip addr add 10.77.0.254/24 dev tw-br
ip link set tw-br up
for node in "${nodes[@]}"; do
  id=${node%%:*} host=${node##*:} ns=tw-${node%%:*}
  ip netns add "$ns"
  ip link add "tw-$id-up" type veth peer name eth0 netns "$ns"
  ip link set "tw-$id-up" master tw-br up
  ip -n "$ns" link set lo up
  ip -n "$ns" link set eth0 up
  ip -n "$ns" addr add "10.77.0.$host/24" dev eth0
  # A disk that can be filled without harm to the machine.
  mkdir -p "$work/data/$id"
  mount -t tmpfs -o size=24m "tw-$id" "$work/data/$id"
done

"$bin/examples/faults" "$bin/tidewater" "$work" "$@" &
lab=$!
code=0
wait "$lab" || code=$?
lab=
exit $code
