#!/usr/bin/env bash
# Installs what building, testing and trying Tidewater needs, on Debian and its kin. Run by
# `make setup`; says nothing and takes a second when everything is there.
#
#   scripts/setup.sh          everything `make test` uses
#   scripts/setup.sh demo     only what `make demo` uses: the player page's packages
#
# Rust and Node are yours to install (rustup.rs, nodejs.org): their versions are named below.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
say() { printf 'setup: %s\n' "$*" >&2; }

# command it gives -> Debian package it is in
packages=(
  "cc:build-essential"
  "ffmpeg:ffmpeg"
  "ffprobe:ffmpeg"
  "gst-launch-1.0:gstreamer1.0-tools"
  "promtool:prometheus"
  "chromium:chromium"
  "curl:curl"
  "openssl:openssl"
  "ip:iproute2"
  "psql:postgresql"
  "pip3:python3-pip"
)
# GStreamer elements the RTMP tests use, which no command shows.
plugins=(gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav)

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
  local missing=() entry
  if ! command -v apt-get >/dev/null; then
    for entry in "${packages[@]}"; do
      command -v "${entry%%:*}" >/dev/null || say "no apt-get here; install ${entry%%:*} yourself (tests that use it are skipped)"
    done
    return
  fi
  for entry in "${packages[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
  done
  for entry in "${plugins[@]}"; do
    dpkg-query -W -f '${Status}' "$entry" 2>/dev/null | grep -q 'ok installed' || missing+=("$entry")
  done
  [ ${#missing[@]} = 0 ] && return
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  say "installing ${missing[*]}"
  as_root apt-get update -qq
  # RUNLEVEL=1 keeps Debian from starting the Prometheus server: only its promtool is wanted.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need() {
  command -v "$1" >/dev/null && return
  say "$1 is missing: $2"
  exit 1
}

install_web() {
  # npm leaves this file; it is older than the lock when the lock has changed since.
  [ web/node_modules/.package-lock.json -nt web/package-lock.json ] && return
  say "npm ci in web/"
  (cd web && npm ci --no-audit --no-fund --loglevel=error)
}

# Autobahn's cases for WebSocket, with a runner of this century; under target/, not on the system.
install_kosoku() {
  [ -x target/autobahn/bin/kosoku ] && return
  say "installing kosoku from PyPI into target/autobahn"
  pip3 install --quiet --disable-pip-version-check --root-user-action ignore \
    --target target/autobahn "kosoku==0.1.0"
}

need cargo "install Rust 1.95 or newer from https://rustup.rs"
case $what in
  demo)
    packages=("cc:build-essential")
    plugins=()
    install_packages
    if command -v npm >/dev/null; then
      install_web
    else
      say "npm is missing: the player page will be the plain one (Node 20.19 or newer builds the full one)"
    fi
    ;;
  all)
    need npm "install Node 20.19 or newer from https://nodejs.org"
    install_packages
    install_web
    install_kosoku
    command -v cargo-nextest >/dev/null || {
      say "installing cargo-nextest (a few minutes, once)"
      cargo install --locked --quiet cargo-nextest
    }
    ;;
  *)
    say "unknown argument $what; it is nothing or demo"
    exit 2
    ;;
esac
