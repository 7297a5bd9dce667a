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

# `make mutations` takes hours; that its patches still fit takes a moment.
mutations_fit() {
  local patch
  for patch in tests/mutations/*.patch; do
    git apply --check "$patch" || return 1
  done
}
step mutations mutations_fit

# The wire decoders with arbitrary bytes, by libFuzzer where that is there. Elsewhere the property tests beside the
# decoders do the same in short, so that nothing is left out and nothing counts as skipped.
if cargo +nightly fuzz --version >/dev/null 2>&1; then
  for target in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$target" .rs)
    step "fuzz $target" cargo +nightly fuzz run "$target" -- -max_total_time=20
  done
else
  printf '== fuzz: there is no nightly toolchain with cargo-fuzz; the property tests of the decoders stand in\n'
fi

# The tests that break whole processes have the machine to themselves; the others run side by side.
cargo_tests() {
  printf '== tests: cargo test %s\n' "$*"
  cargo test "$@" 2>&1 | tee -a "$work/output"
  return "${PIPESTATUS[0]}"
}
broke=no
cargo_tests --workspace --features failpoints --no-fail-fast -- --skip exactly_once:: || broke=yes
cargo_tests --workspace --features failpoints --test it --no-fail-fast -- exactly_once:: --test-threads 1 || broke=yes

# Sums libtest's closing lines. A test that returned early because of a missing component counts as passed there.
read -r passed failed ignored < <(awk '
  /^test result: / { for (i = 1; i < NF; i++) {
    if ($(i+1) ~ /^passed;?$/) p += $i
    if ($(i+1) ~ /^failed;?$/) f += $i
    if ($(i+1) ~ /^ignored;?$/) g += $i } }
  END { print p + 0, f + 0, g + 0 }' "$work/output")

# A test that failed is run once more, alone. One that passes then is flaky: it is said and counted, never hidden, because
# a shared machine that stood still for a minute is no fault of the code, and a race that shows rarely is one.
mapfile -t failures < <(grep -oP '^test \K\S+(?= \.\.\. FAILED$)' "$work/output" | sort -u)
flaky=()
if [ "$broke" = yes ] && [ "${#failures[@]}" -gt 0 ] && [ "${#failures[@]}" -le 3 ] && [ "${#failures[@]}" = "$failed" ]; then
  broke=no
  for name in "${failures[@]}"; do
    printf '== once more, alone: %s\n' "$name"
    if cargo test --workspace --features failpoints -- --exact "$name" 2>&1 | tee "$work/again" | tail -n 60 \
      && grep -q '^test result: ok\. 1 passed' "$work/again"; then
      flaky+=("$name")
      passed=$((passed + 1)) failed=$((failed - 1))
    else
      broke=yes
    fi
  done
fi
[ "$broke" = no ] || broken+=(tests)
for name in "${flaky[@]+"${flaky[@]}"}"; do
  printf '== FLAKY: failed at first and passed alone: %s\n' "$name"
done
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
