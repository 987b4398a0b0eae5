#!/usr/bin/env bash
# logs.sh NAME [OPTION...] - the log of an engine, router, nginx or docker-readonly; OPTIONs are those of docker logs
# (default: -f --tail 100).
set -euo pipefail
# shellcheck source=deploy/lib/common.sh
. "$(dirname "$0")/lib/common.sh"

container_of() {
  case $1 in
    router) echo "$GATEWAY" ;;
    nginx | docker-readonly) echo "inference-$1" ;;
    vllm-* | inference-*) echo "$1" ;;
    *) echo "vllm-$1" ;;
  esac
}

main() {
  [ $# -ge 1 ] || fail "which log? logs.sh NAME: an engine ($(engines)), router, nginx or docker-readonly"
  local container
  container=$(container_of "$1")
  shift
  [ "$(container_state "$container")" != absent ] || fail "there is no container $container: deploy/status.sh shows what there is"
  [ $# -gt 0 ] || set -- -f --tail 100
  exec docker logs "$@" "$container"
}

main "$@"
