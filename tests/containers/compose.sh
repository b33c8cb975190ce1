#!/usr/bin/env bash
# The compose demo with the real engine: three containers, multicast between them, nginx in front, curl as
# the user. In both modes: kill, stop, restart under a new address, cut off and mended; no session may go.
#
#   tests/containers/compose.sh [all-peers|backup-only|seeds ...]     (seeds: all-peers, found by name)
#
# Takes a static session-node from the directory $PREBUILT, else builds one. Where nginx:stable can't be pulled,
# an image of that name is made from Debian's packages (needs root and mmdebstrap) and kept.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! docker info >/dev/null 2>&1; then
  echo "SKIPPED: no Docker engine answers; the compose demo was NOT tested" >&2
  exit 77
fi
if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose="docker-compose"; fi

work=$(mktemp -d)
export PORT=${PORT:-18080} PREBUILT=${PREBUILT:-$work/image} COMPOSE_PROJECT_NAME="sessionmesh-$$" ACK=one
jar=$work/jar
files="-f deploy/docker-compose.yml -f deploy/docker-compose.prebuilt.yml"
cleanup() {
  docker rm -f "$COMPOSE_PROJECT_NAME-n2-moved" >/dev/null 2>&1 || true
  MODE=all-peers $compose $files down -v >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }
now() { date +%s%N; }
since() { echo "$((($(now) - $1) / 1000000)) ms"; }
ask() { curl -sS -m 8 -c "$jar" -b "$jar" "$@"; }
url=http://127.0.0.1:$PORT

if ! docker image inspect nginx:stable >/dev/null 2>&1 && ! timeout 120 docker pull -q nginx:stable >/dev/null 2>&1; then
  echo "no registry answers: nginx:stable is made from Debian's packages"
  if ! mmdebstrap --quiet --variant=essential --include=nginx-light bookworm "$work/nginx.tar"; then
    echo "SKIPPED: nor can it be made (needs root, mmdebstrap and Debian's packages); the compose demo was NOT tested" >&2
    exit 77
  fi
  docker import "$work/nginx.tar" nginx:stable >/dev/null
fi

if [ ! -x "$PREBUILT/session-node" ]; then
  target="$(uname -m)-unknown-linux-gnu"
  RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" -p session-node
  mkdir -p "$PREBUILT"
  cp "target/$target/release/session-node" "$PREBUILT/"
fi
cp deploy/Dockerfile.prebuilt "$PREBUILT/"

# The names of the nodes that a node sees, itself left out, and only if all are ready.
members() { curl -sS -m 3 "$url/members" | grep -o '"state":"ready"' | wc -l; }
wait_members() {
  local begun; begun=$(now)
  for _ in $(seq 300); do
    # Through the balancer: each node in turn must say so.
    [ "$(members)" = "$1" ] && [ "$(members)" = "$1" ] && [ "$(members)" = "$1" ] && { since "$begun"; return; }
    sleep 0.1
  done
  fail "not every node sees $1 others"
}
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# The session is there, under its id, with all its items; prints how long the slowest answer took.
check() {
  local what=$1 slowest=0 served=""
  for _ in $(seq 12); do
    local begun body; begun=$(now)
    body=$(ask "$url/session") || fail "$what: no answer"
    local took=$((($(now) - begun) / 1000000))
    [ "$took" -gt "$slowest" ] && slowest=$took
    [ "$(field id <<<"$body")" = "$id" ] || fail "$what: the session is gone: $body"
    for item in $items; do grep -q "\"$item\":" <<<"$body" || fail "$what: $item is gone: $body"; done
    served="$served $(field node <<<"$body")"
  done
  echo "   $what: 12 requests, served by$(tr ' ' '\n' <<<"$served" | sort -u | tr '\n' ' '), slowest $slowest ms"
}
add() {
  local code
  code=$(ask -o /dev/null -w '%{http_code}' -X POST "$url/put?k=$1&v=1")
  [ "$code" = 200 ] || fail "adding $1: $code"
  items="$items $1"
}

tell() {
  export MODE=$1 SEEDS="" how="multicast"
  if [ "$1" = seeds ]; then
    export MODE=all-peers SEEDS=nodes:4000 how="the engine's name server"
  fi
  echo "== $MODE, by $how"
  rm -f "$jar"
  items=""
  $compose $files down -v >/dev/null 2>&1 || true
  $compose $files up --build -d >"$work/up.log" 2>&1 || { cat "$work/up.log"; fail "compose up"; }
  echo "   formed after $(wait_members 2)"
  add first
  id=$(ask "$url/session" | field id)
  [ -n "$id" ] || fail "no session"
  check "round-robin"
  node() { $compose $files ps -q "$1"; }

  # No RST comes from a container that is gone.
  docker kill "$(node n2)" >/dev/null
  check "n2 killed"
  add while-n2-was-dead
  echo "   n2 dropped after $(wait_members 1)"
  docker start "$(node n2)" >/dev/null
  echo "   n2 back after $(wait_members 2)"
  check "n2 back"

  local begun; begun=$(now)
  docker stop "$(node n1)" >/dev/null
  echo "   n1 stopped in $(since "$begun")"
  check "n1 stopped"
  docker start "$(node n1)" >/dev/null
  wait_members 2 >/dev/null
  check "n1 back"

  # The same name at another address: the old one is gone, the new one takes its place.
  docker stop "$(node n2)" >/dev/null
  docker run -d --name "$COMPOSE_PROJECT_NAME-n2-moved" --network "${COMPOSE_PROJECT_NAME}_mesh" --ip 10.77.0.22 \
    -e SESSIONMESH_SEEDS="$SEEDS" -e SESSIONMESH_MODE="$MODE" -e SESSIONMESH_ACK=one -e SESSIONMESH_BIND=0.0.0.0:4000 \
    -e SESSIONMESH_SECRET='not a secret, but long enough for a demo' -e SESSIONMESH_INTERFACE=10.77.0.22 \
    sessionmesh/session-node --name n2 --http 0.0.0.0:8080 >/dev/null
  echo "   n2 at another address, seen after $(wait_members 2)"
  add while-n2-was-elsewhere
  check "n2 elsewhere"
  docker stop "$COMPOSE_PROJECT_NAME-n2-moved" >/dev/null
  docker rm "$COMPOSE_PROJECT_NAME-n2-moved" >/dev/null
  docker start "$(node n2)" >/dev/null
  wait_members 2 >/dev/null

  docker network disconnect "${COMPOSE_PROJECT_NAME}_mesh" "$(node n3)"
  check "n3 cut off"
  echo "   n3 dropped after $(wait_members 1)"
  add while-n3-was-cut-off
  docker network connect --ip 10.77.0.13 "${COMPOSE_PROJECT_NAME}_mesh" "$(node n3)"
  echo "   n3 mended, seen after $(wait_members 2)"
  check "n3 mended"
  $compose $files down -v >/dev/null 2>&1
}

[ $# -gt 0 ] || set -- all-peers backup-only seeds
for mode in "$@"; do tell "$mode"; done
echo "== every step held: no session was lost"
