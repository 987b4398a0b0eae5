#!/usr/bin/env bash
# status.sh - containers and services. Exit status 0: everything that should run is healthy; else 1.
set -euo pipefail
# shellcheck source=deploy/lib/common.sh
. "$(dirname "$0")/lib/common.sh"

WRONG=0

# One container: state, health, since when, how often it was restarted.
row() {
  local container=$1 state health since restarts
  read -r state health since restarts < <(inspect "$container" \
    '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}-{{end}} {{.State.StartedAt}} {{.RestartCount}}' \
    "absent - - 0")
  printf '%-28s %-10s %-10s %-22s %s\n' "$container" "$state" "$health" "${since%.*}" "$restarts"
  if [ "$state" != running ] || { [ "$health" != healthy ] && [ "$health" != - ]; }; then WRONG=1; fi
}

engine_containers() {
  local running name
  running=$(docker ps -a --filter label=com.docker.compose.project=inference-sim --format '{{.Names}}')
  if [ -n "$running" ]; then
    printf '%s\n' "$running" | sort
  else
    for name in $(engines); do echo "vllm-$name"; done
  fi
}

main() {
  local container
  require_docker
  if [ ! -r "$ENV_FILE" ]; then ENV_FILE=$EXAMPLE; fi
  printf '%-28s %-10s %-10s %-22s %s\n' container state health "since (UTC)" restarts
  for container in $(engine_containers) inference-docker-readonly "$GATEWAY" inference-nginx; do row "$container"; done
  echo
  if is_running "$GATEWAY"; then
    docker exec -i "$GATEWAY" python3 -I - <"$DEPLOY/lib/services.py" || WRONG=1
  else
    echo "router: not running"
  fi
  exit "$WRONG"
}

main
