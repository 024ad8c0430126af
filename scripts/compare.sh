#!/usr/bin/env bash
# Fetches the servers that `make compare` holds Tidewater against into target/compare: nginx and its RTMP module
# from Debian's packages, node-media-server from npm. Packages are unpacked there, not installed: nothing else
# on the machine changes and no root is needed. What cannot be had is said and left out of the comparison.
# Never part of `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/compare
# The version that RESULTS.md was taken with; its figures are its own.
node_media_server=4.4.3

say() { printf 'compare: %s\n' "$*" >&2; }
mkdir -p "$folder"
cd "$folder"

nginx() {
  [ -x usr/sbin/nginx ] && [ -e usr/lib/nginx/modules/ngx_rtmp_module.so ] && [ -s debian-versions ] && return
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  say "fetching nginx and libnginx-mod-rtmp from Debian"
  rm -f ./*.deb
  apt-get download -qq nginx libnginx-mod-rtmp 2>/dev/null ||
    { apt-get update -qq && apt-get download -qq nginx libnginx-mod-rtmp 2>/dev/null; } || return 1
  : >debian-versions
  for package in ./*.deb; do
    dpkg-deb -x "$package" .
    dpkg-deb -f "$package" Package Version | sed 's/^[A-Za-z]*: //' | paste -sd ' ' >>debian-versions
  done
  usr/sbin/nginx -v 2>/dev/null
}

node_media_server() {
  [ -e node_modules/node-media-server/package.json ] && return
  command -v npm >/dev/null || return 1
  say "fetching node-media-server $node_media_server from npm"
  npm install --prefix . --no-audit --no-fund --loglevel=error "node-media-server@$node_media_server" >/dev/null
}

nginx || say "nginx with its RTMP module cannot be had here; it is left out"
node_media_server || say "node-media-server cannot be had here; it is left out"
