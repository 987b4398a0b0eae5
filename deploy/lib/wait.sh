# shellcheck shell=bash
# Waiting for containers, and telling how far they are.

POLL_S=1
UNHEALTHY_S=60 # a busy machine may miss a few checks
TELL_AGAIN_S=30

# phase_of_log: how far an engine is that is not healthy yet, from the last lines it wrote (stdin).
phase_of_log() {
  awk '
    /[Dd]ownloading|Fetching [0-9]+ files/                        { phase = "downloading" }
    /[Ll]oading weights|Starting to load model|Time spent downloading|Loading safetensors/ { phase = "loading" }
    /torch\.compile|Capturing CUDA graph|[Gg]raph capturing|KV cache size|Warming up/      { phase = "warming up" }
    END { print phase == "" ? "starting" : phase }'
}

# phase CONTAINER: starting, downloading, loading, warming up, unhealthy, ready or failed.
phase() {
  local container=$1 state health restarts
  read -r state health restarts < <(inspect "$container" \
    '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.RestartCount}}' "absent none 0")
  case $state in
    running)
      if [ "$health" = healthy ] || [ "$health" = none ]; then
        echo ready
      elif [ "$restarts" -gt "${RESTARTS_BEFORE:-0}" ]; then
        echo failed
      elif [ "$health" = unhealthy ]; then
        echo unhealthy
      else
        docker logs --tail 40 "$container" 2>&1 | tr '\r' '\n' | phase_of_log
      fi
      ;;
    created | absent) echo starting ;;
    *) echo failed ;;
  esac
}

# await NAME CONTAINER DEADLINE: until it is ready, with a line for each phase; 1 if it failed or is late.
# DEADLINE is in seconds of $SECONDS.
await() {
  local name=$1 container=$2 deadline=$3 now last="" told=0 since=0
  RESTARTS_BEFORE=$(inspect "$container" '{{.RestartCount}}' 0)
  while :; do
    now=$(phase "$container")
    if [ "$now" != "$last" ] || [ $((SECONDS - told)) -ge "$TELL_AGAIN_S" ]; then
      say "$(printf '%-16s %s (%s s)' "$name" "$now" "$SECONDS")"
      if [ "$now" != "$last" ]; then since=$SECONDS; fi
      last=$now told=$SECONDS
    fi
    if [ "$now" = unhealthy ] && [ $((SECONDS - since)) -ge "$UNHEALTHY_S" ]; then now=failed; fi
    case $now in
      ready) return 0 ;;
      failed)
        why "$name" "$container" "failed"
        return 1
        ;;
    esac
    if [ "$SECONDS" -ge "$deadline" ]; then
      why "$name" "$container" "is not ready in time (still $now; --timeout allows more)"
      return 1
    fi
    sleep "$POLL_S"
  done
}

# Its last words, and where to look.
why() {
  printf '%s: %s %s; the last it said:\n' "$PROGRAM" "$1" "$3" >&2
  docker logs --tail 15 "$2" 2>&1 | sed 's/^/    /' >&2 || true
  printf '%s: see deploy/logs.sh %s\n' "$PROGRAM" "$1" >&2
}
