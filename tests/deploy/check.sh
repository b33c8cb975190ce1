#!/usr/bin/env bash
# The form of what can't be run here: the Kubernetes manifests against the API's own schemas, the systemd unit
# by systemd's own checker. What is not installed is said, loudly.
#   tests/deploy/check.sh [DIRECTORY with kubernetes-validate, from pip]
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:${1:-}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
skipped=0
skip() { echo "SKIPPED: $*" >&2; skipped=77; }

manifests() {
  cp -r deploy/kubernetes "$work/kubernetes"
  rm -f "$work/kubernetes/secret"
  if kubectl kustomize "$work/kubernetes" >/dev/null 2>&1; then fail "without a secret there must be an error"; fi
  head -c 32 /dev/urandom | base64 >"$work/kubernetes/secret"
  kubectl kustomize "$work/kubernetes" >"$work/all.yaml"
  kubernetes-validate --strict "$work/all.yaml"
  # The checker can fail.
  sed 's/readinessProbe:/readynessProbe:/' "$work/all.yaml" >"$work/wrong.yaml"
  if kubernetes-validate --strict "$work/wrong.yaml" >/dev/null 2>&1; then fail "a misspelt field was not found"; fi
  # Every option that the manifests set is one.
  local option
  for option in $(grep -oE 'SESSIONMESH_[A-Z_]+' "$work/all.yaml" | sort -u); do
    option=${option#SESSIONMESH_}
    grep -q "^| \`${option,,}\`" docs/configuration.md || fail "there is no option ${option,,}"
  done
}

unit() {
  sed 's#/usr/local/bin/session-node#/bin/true#' deploy/systemd/session-node.service >"$work/session-node.service"
  systemd-analyze verify --man=no "$work/session-node.service" 2>&1 | tee "$work/said"
  [ ! -s "$work/said" ] || fail "systemd does not like the unit"
  # The checker can fail.
  sed 's/^Restart=.*/Restart=sometimes/' "$work/session-node.service" >"$work/wrong.service"
  systemd-analyze verify --man=no "$work/wrong.service" 2>&1 | grep -q sometimes || fail "a wrong value was not found"
}

if ! command -v kubectl >/dev/null; then skip "kubectl is not installed; the manifests were NOT checked"
elif ! command -v kubernetes-validate >/dev/null; then skip "kubernetes-validate is not installed; the manifests were NOT checked"
else manifests; echo "the manifests are as the API wants them"; fi
if ! command -v systemd-analyze >/dev/null; then skip "systemd-analyze is not installed; the unit was NOT checked"
else unit; echo "the unit is as systemd wants it"; fi
# 77: held, but not all was checked.
exit "$skipped"
