#!/usr/bin/env bash
# Plants protocol bugs, one at a time, in a scratch clone of what is committed, and shows that the tests catch each.
#
#   tests/mutations/run.sh            all of them
#   tests/mutations/run.sh 02 07      these
#
# A mutation is a file `NN-name.patch` in this folder: lines of description, then a diff as `git diff` prints it.
#
#   bug: what is wrong now, in one line
#   tests: arguments of `cargo test --features failpoints` that must now fail    (one line or more; one failing is enough)
#   diff --git a/src/… b/src/…
#
# Verdicts: `caught`; `MISSED` (every named test passed, or none ran); `STALE` (the patch no longer applies) and `BROKEN`
# (the mutant does not compile): renew the patch. The named tests must pass without any mutation first. Exit code 1 unless
# every mutation is caught. Takes minutes: each mutant is compiled.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
limit=${LIMIT_SECONDS:-900}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
clone=$scratch/clone

# The clone has its own path, so cargo keeps its crates apart and shares only the dependencies with the real work tree.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
git clone --quiet --local "$root" "$clone"
if [ -d "$root/.cache" ]; then ln -s "$root/.cache" "$clone/.cache"; fi
if [ -n "$(git -C "$root" status --porcelain -- src tests Cargo.toml)" ]; then
  echo "mutations: the work tree has changes that are not committed; they are not in the clone" >&2
fi

patches=()
for patch in "$here"/[0-9][0-9]-*.patch; do
  number=$(basename "$patch")
  number=${number%%-*}
  if [ $# = 0 ] || [[ " $* " == *" $number "* ]]; then patches+=("$patch"); fi
done
[ ${#patches[@]} -gt 0 ] || { echo "mutations: nothing to do for: $*" >&2; exit 2; }

field() { sed -n "/^diff /q; s/^$1: //p" "$2"; }

# Prints passed, failed or none for one line of test arguments.
run_tests() {
  local log=$1 arguments code=0
  read -ra arguments <<< "$2"
  (cd "$clone" && timeout "$limit" cargo test --quiet --features failpoints "${arguments[@]}") > "$log" 2>&1 || code=$?
  if [ "$code" != 0 ]; then
    echo failed
  elif grep -Eq '^test result: ok\. [1-9]' "$log"; then
    echo passed
  else
    echo none
  fi
}

compiles() { (cd "$clone" && cargo test --quiet --features failpoints --no-run) > "$1" 2>&1; }

echo "== without any mutation"
compiles "$scratch/log" || { tail -n 20 "$scratch/log"; echo "mutations: the code itself does not compile" >&2; exit 1; }
while IFS= read -r tests; do
  outcome=$(run_tests "$scratch/log" "$tests")
  printf '%-7s %s\n' "$outcome" "$tests"
  if [ "$outcome" = failed ]; then
    tail -n 30 "$scratch/log"
    echo "mutations: these tests fail without any mutation, so they prove nothing" >&2
    exit 1
  fi
done < <(for patch in "${patches[@]}"; do field tests "$patch"; done | sort -u)

caught=0
others=0
for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  git -C "$clone" checkout --quiet --force HEAD
  verdict=MISSED
  by=
  if ! git -C "$clone" apply --recount "$patch" 2> "$scratch/log"; then
    verdict=STALE
  elif ! compiles "$scratch/log"; then
    verdict=BROKEN
  else
    while IFS= read -r tests; do
      if [ "$(run_tests "$scratch/log" "$tests")" = failed ]; then
        verdict=caught
        by=$(grep -Em1 '^test .* FAILED$|^    [a-z_:]+$' "$scratch/log" | sed 's/^ *//' || true)
        break
      fi
    done < <(field tests "$patch")
  fi
  printf '%-7s %s: %s%s\n' "$verdict" "$name" "$(field bug "$patch")" "${by:+ (by $by)}"
  case "$verdict" in
    caught) caught=$((caught + 1)) ;;
    STALE | BROKEN) others=$((others + 1)); head -n 15 "$scratch/log" ;;
    *) others=$((others + 1)) ;;
  esac
done
printf '%d of %d mutations caught\n' "$caught" "$((caught + others))"
[ "$others" = 0 ]
