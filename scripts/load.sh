#!/usr/bin/env bash
# Loads a fresh cluster on free ports: builds, starts `tidewater dev --demo`, runs bench against it, stops
# it. Arguments go to `bench run`. Exits as bench does, or 1 if the cluster did not stop cleanly or its
# memory kept growing (SOAK=1).
#
#   scripts/load.sh --flv 100 --secs 20
#   SOAK=1 scripts/load.sh --flv 50 --llhls 50 --publishers 2 --secs 3600
#
# PROFILE=dev uses the build that `make demo` made; figures of such a build mean nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
# A run's memory is compared with what it was after this many seconds, when caches and windows are full.
warm_s=${SOAK_WARM_SECONDS:-120}
# Allocators keep some of what was freed; a leak of one buffer per segment passes this within minutes.
growth_percent=${SOAK_GROWTH_PERCENT:-25}

cargo build --locked --profile "$profile" -p node -p bench
case $profile in dev) folder=debug ;; *) folder=$profile ;; esac
bin=${CARGO_TARGET_DIR:-target}/$folder
work=$(mktemp -d)
dev=
cleanup() {
  if [ -n "$dev" ]; then kill -TERM "$dev" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

"$bin/tidewater" dev --demo --json --edges "${EDGES:-1}" \
  --set rtmp.listen=127.0.0.1:0 --set http.listen=127.0.0.1:0 \
  --set admin.listen=127.0.0.1:0 --set cluster.listen=127.0.0.1:0 \
  --set log.filter=warn >"$work/ready" 2>"$work/log" &
dev=$!
for _ in $(seq 300); do
  [ -s "$work/ready" ] && break
  kill -0 "$dev" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
port() { sed -E "s/.*\"$1\":\[?\"([^\"]+)\".*/\1/" "$work/ready"; }

rss_kib() { awk '/^VmRSS:/{print $2}' "/proc/$dev/status"; }
if [ "${SOAK:-}" = 1 ]; then
  (sleep "$warm_s" && rss_kib >"$work/warm") &
fi

code=0
"$bin/bench" run --target "http://$(port http)" --rtmp "rtmp://$(port rtmp)" --pid "$dev" "$@" || code=$?

if [ -s "$work/warm" ]; then
  before=$(cat "$work/warm") after=$(rss_kib)
  echo "memory: $before KiB after ${warm_s} s, $after KiB at the end"
  if [ $((after * 100)) -gt $((before * (100 + growth_percent))) ]; then
    echo "memory grew by more than $growth_percent %" >&2
    code=1
  fi
fi

kill -TERM "$dev"
wait "$dev" || { echo "the cluster did not stop cleanly" >&2; code=1; }
dev=
if [ -s "$work/log" ]; then
  echo "warnings and errors of the cluster:" >&2
  head -50 "$work/log" >&2
fi
exit $code
