#!/usr/bin/env bash
# Checks the Prometheus files that deploy/ ships, with promtool. Run by `make check`.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v promtool >/dev/null; then
  if [ "${TIDEWATER_STRICT:-}" = 1 ]; then
    echo "check: promtool is missing; make setup installs it" >&2
    exit 1
  fi
  echo "check: promtool is missing, Prometheus files not checked" >&2
  exit 0
fi

for file in deploy/prometheus/*; do
  case $file in
    *test*.yml) promtool test rules "$file" ;;
    *alerts*.yml | *rules*.yml) promtool check rules "$file" ;;
    *.yml) promtool check config --syntax-only "$file" ;;
  esac
done
