#!/usr/bin/env bash
# Fetches the servers that `make compare` holds Tidewater against into target/compare: nginx and its RTMP module
# and nchan from Debian's packages, node-media-server and ws from npm, picows from PyPI. Packages are unpacked there, not installed: nothing else
# on the machine changes and no root is needed. What cannot be had is said and left out of the comparison.
# Never part of `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/compare
# The versions that RESULTS.md was taken with; its figures are theirs.
node_media_server=4.4.3
ws=8.23.0
picows=2.3.1
uvloop=0.23.0

say() { printf 'compare: %s\n' "$*" >&2; }
mkdir -p "$folder"
cd "$folder"

nginx() {
  [ -x usr/sbin/nginx ] && [ -e usr/lib/nginx/modules/ngx_rtmp_module.so ] &&
    [ -e usr/lib/nginx/modules/ngx_nchan_module.so ] && [ -s debian-versions ] && return
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  say "fetching nginx, libnginx-mod-rtmp and libnginx-mod-nchan from Debian"
  rm -f ./*.deb
  apt-get download -qq nginx libnginx-mod-rtmp libnginx-mod-nchan 2>/dev/null ||
    { apt-get update -qq && apt-get download -qq nginx libnginx-mod-rtmp libnginx-mod-nchan 2>/dev/null; } || return 1
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

npm_ws() {
  [ -e node_modules/ws/package.json ] && return
  command -v npm >/dev/null || return 1
  say "fetching ws $ws from npm"
  npm install --prefix . --no-audit --no-fund --loglevel=error "ws@$ws" >/dev/null
}

picows() {
  [ -e python/picows/__init__.py ] && [ -s python-versions ] && return
  command -v pip3 >/dev/null || return 1
  say "fetching picows $picows and uvloop $uvloop from PyPI"
  pip3 install --quiet --disable-pip-version-check --root-user-action ignore --target python \
    "picows==$picows" "uvloop==$uvloop" || return 1
  echo "picows $picows on uvloop $uvloop, $(python3 --version)" >python-versions
}

nginx || say "nginx with its modules cannot be had here; it is left out"
node_media_server || say "node-media-server cannot be had here; it is left out"
npm_ws || say "npm ws cannot be had here; it is left out"
picows || say "picows cannot be had here; it is left out"
