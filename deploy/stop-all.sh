#!/usr/bin/env bash
# stop-all.sh - drains the router, then takes down nginx, the router, the engines and their networks.
#   --purge    also removes what is kept otherwise: usage, keys, downloaded models
# What simulated engines left is always removed. Exit status 0: nothing of it runs any more.
set -euo pipefail
# shellcheck source=deploy/lib/common.sh
. "$(dirname "$0")/lib/common.sh"

PURGE=no
DRAIN_S=45

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --purge) PURGE=yes ;;
      -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;;
      *) fail "unknown option $1; see stop-all.sh --help" ;;
    esac
    shift
  done
}

# New requests get 503, running ones end; nginx still stands before them.
drain() {
  if ! is_running "$GATEWAY"; then return; fi
  say "router           draining (at most $DRAIN_S s)"
  docker stop -t "$DRAIN_S" "$GATEWAY" >/dev/null
}

# take_down NAME: the containers of one of our Compose projects; each ends in its own time.
take_down() {
  local containers
  mapfile -t containers < <(docker ps -aq --filter "label=com.docker.compose.project=inference-$1")
  [ "${#containers[@]}" -gt 0 ] || return 0
  docker stop "${containers[@]}" >/dev/null || fail "$1 could not be stopped: see the line above"
  docker rm --volumes "${containers[@]}" >/dev/null || fail "$1 could not be removed: see the line above"
  say "$(printf '%-16s down' "$1")"
}

# Every engine that these scripts started, also one that is in ENGINES no more.
engine_projects() {
  docker ps -a --filter label=com.docker.compose.project --format '{{.Label "com.docker.compose.project"}} {{.Names}}' |
    awk '$1 ~ /^inference-/ && $2 ~ /^vllm-/ {sub(/^inference-/, "", $1); print $1}' | sort -u
}

take_down_engines() {
  local project jobs=() job failed=0
  for project in $(engine_projects); do
    take_down "$project" &
    jobs+=("$!")
  done
  for job in ${jobs[@]+"${jobs[@]}"}; do wait "$job" || failed=1; done
  [ "$failed" -eq 0 ] || exit 1
}

remove_network() {
  docker network inspect "$1" >/dev/null 2>&1 || return 0
  docker network rm "$1" >/dev/null 2>&1 ||
    say "kept             network $1: a container that is not of this set-up is on it (docker network inspect $1)"
}

volume_exists() { docker volume inspect "$1" >/dev/null 2>&1; }

remove_volumes() {
  local volume
  for volume in "${STATE_VOLUMES[@]}" "$MODEL_VOLUME"; do
    if ! volume_exists "$volume"; then continue; fi
    if [ "$PURGE" = yes ] || [ "$volume" = inference-state-sim ]; then
      docker volume rm "$volume" >/dev/null || fail "the volume $volume cannot be removed: see the line above"
    else
      say "kept             volume $volume (--purge removes it)"
    fi
  done
}

main() {
  parse "$@"
  require_docker
  claim
  drain
  take_down nginx
  take_down router
  take_down_engines
  remove_network inference-front
  remove_network inference-discovery
  remove_network inference-observe
  remove_network "$NETWORK"
  remove_volumes
  say "nothing runs any more"
}

main "$@"
