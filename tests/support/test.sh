#!/usr/bin/env bash
# Format, lints and every test; closes with one line that counts them all. Every step runs even when an earlier one failed.
set -uo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The tests write a line here for each one that a missing component made them skip (tests/it/support/process.rs).
export DATAFLOW_SKIPPED_LOG="$work/skipped"
: > "$DATAFLOW_SKIPPED_LOG"
broken=()

step() {
  local name=$1
  shift
  printf '== %s: %s\n' "$name" "$*"
  "$@" || broken+=("$name")
}

step format cargo fmt --all --check
step lint cargo clippy --quiet --workspace --all-targets --features failpoints -- -D warnings
if cargo deny --version >/dev/null 2>&1; then
  # Advisories need a database from the network; the rest is decided by what is in the repository.
  step licences cargo deny --offline check bans licenses sources
else
  printf '== licences: SKIPPED, cargo-deny is not installed (building it takes minutes: cargo install --locked cargo-deny)\n'
fi

printf '== tests: cargo test --workspace --features failpoints\n'
cargo test --workspace --features failpoints --no-fail-fast 2>&1 | tee "$work/output"
[ "${PIPESTATUS[0]}" = 0 ] || broken+=(tests)

# Sums libtest's closing lines. A test that returned early because of a missing component counts as passed there.
read -r passed failed ignored < <(awk '
  /^test result: / { for (i = 1; i < NF; i++) {
    if ($(i+1) ~ /^passed;?$/) p += $i
    if ($(i+1) ~ /^failed;?$/) f += $i
    if ($(i+1) ~ /^ignored;?$/) g += $i } }
  END { print p + 0, f + 0, g + 0 }' "$work/output")
without=$(sort -u "$DATAFLOW_SKIPPED_LOG" | awk 'END { print NR }')
if [ "$without" -gt 0 ]; then
  printf '== SKIPPED for want of a component:\n'
  sort -u "$DATAFLOW_SKIPPED_LOG" | sed 's/^/   /'
fi
if [ "$((passed + failed))" = 0 ]; then
  broken+=("no test ran")
fi
for name in "${broken[@]+"${broken[@]}"}"; do
  printf '== FAILED: %s\n' "$name"
done
printf '\n%d passed, %d failed, %d skipped\n' "$((passed - without))" "$failed" "$((ignored + without))"
[ ${#broken[@]} = 0 ]
