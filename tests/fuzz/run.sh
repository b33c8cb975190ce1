#!/usr/bin/env bash
# Each target for so many seconds, on the committed corpus first. Exit 77: cargo-fuzz is not here and can't be
# installed, or there is no C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
version=0.13.2
command -v c++ >/dev/null || {
  echo "SKIPPED: libFuzzer needs a C++ compiler" >&2
  exit 77
}
if ! cargo fuzz --version >/dev/null 2>&1; then
  cargo install --quiet --locked --version "$version" --root target/tools cargo-fuzz || {
    echo "SKIPPED: cargo-fuzz can't be installed" >&2
    exit 77
  }
  export PATH="$PATH:$PWD/target/tools/bin"
fi
cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none
for target in heartbeat hello frames messages replies config cookie; do
  # New inputs go elsewhere: a run changes nothing here.
  found=$(mktemp -d)
  log=$found.log
  status=0
  cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" "$found" "tests/fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -print_final_stats=1 >"$log" 2>&1 || status=$?
  if [ "$status" != 0 ]; then
    tail -40 "$log"
    echo "FAILED: $target; the input is in tests/fuzz/artifacts/$target" >&2
    exit 1
  fi
  echo "$target: $(grep -aoE 'stat::number_of_executed_units: *[0-9]+' "$log" | grep -oE '[0-9]+$') executions in $seconds s"
  rm -rf "$found" "$log"
done
