#!/usr/bin/env bash
# What `make test` runs, in order, with a line of figures for each step. `full` adds the long runs.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" IPYTHONDIR="$PWD/tests/ipython"
unset PROC_NB_SHORT # tutorials at a fiftieth of their steps: tests/ipython/profile_default/startup/shorter.py
mode=${1:-} failed=() short="env PROC_NB_SHORT=50"
[ "$mode" = full ] && short=

step() {
  local name=$1 begun=$SECONDS; shift
  echo "==> $name"
  "$@" || failed+=("$name")
  echo "    $((SECONDS - begun)) s"
}

offline() { PYTHONPATH="$PWD/tests/offline${PYTHONPATH:+:$PYTHONPATH}" "$@"; } # a tutorial needs no network

in_step() { # notebooks and modules agree, and the notebooks are clean
  local before kept; kept=$(mktemp -d); cp -Rp proc_nb "$kept" # with their dates, by which numba knows what it has compiled
  before=$(sha256sum $(find proc_nb -name "*.py" | sort) nbs/*.ipynb tutorials/*.ipynb | sha256sum)
  nbdev-clean && nbdev-export && [ "$before" = "$(sha256sum $(find proc_nb -name "*.py" | sort) nbs/*.ipynb tutorials/*.ipynb | sha256sum)" ] \
    || { echo "nbdev-clean or nbdev-export changed files: look at git diff, then commit"; return 1; }
  cp -Rp "$kept/proc_nb" . && rm -r "$kept"
}

step "notebooks and modules in step" in_step
step "names" ruff check -q proc_nb tests
step "notebooks" offline nbdev-test nbs --n-workers "${WORKERS:-2}"
step "tutorials" offline $short nbdev-test tutorials --n-workers "${WORKERS:-2}"
if [ "$mode" = full ]; then step "site" python tests/docs_check.py $(command -v chromium >/dev/null && echo --shots); fi
if [ "$mode" = full ]; then step "slow notebooks" offline nbdev-test --n-workers "${WORKERS:-2}" --flags slow; fi
if [ "$mode" = full ]; then step "tests" python -m pytest; else step "tests" $short python -m pytest -n "${WORKERS:-2}" --dist loadfile -m "not full"; fi

if [ ${#failed[@]} -gt 0 ]; then printf '\nFAILED: %s\n' "${failed[*]}"; exit 1; fi
printf '\nall steps passed in %s s\n' "$SECONDS"
