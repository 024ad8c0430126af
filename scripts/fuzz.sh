#!/usr/bin/env bash
# Runs every fuzz target of every crate for some seconds each: scripts/fuzz.sh [SECONDS] [TARGET…]
#
# Works on stable Rust (no sanitizer: nothing here is unsafe). New inputs go to target/fuzz-corpus;
# move the ones worth keeping into the crate's fuzz/corpus, whose files ordinary tests run.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
wanted=("$@")

command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
ran=0
for manifest in */fuzz/Cargo.toml; do
  crate=${manifest%%/*}
  for target in $(cd "$crate" && cargo fuzz list); do
    if [ ${#wanted[@]} -gt 0 ] && [[ ! " ${wanted[*]} " == *" $target "* ]]; then continue; fi
    fresh=$PWD/target/fuzz-corpus/$crate/$target
    mkdir -p "$fresh"
    corpora=("$fresh")
    [ -d "$crate/fuzz/corpus/$target" ] && corpora+=("fuzz/corpus/$target")
    echo "fuzz: $crate $target, $seconds s"
    (cd "$crate" && cargo fuzz run -s none "$target" "${corpora[@]}" -- \
      -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1)
    ran=$((ran + 1))
  done
done
echo "fuzz: $ran targets"
[ "$ran" -gt 0 ]
