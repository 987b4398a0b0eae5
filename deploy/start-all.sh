#!/usr/bin/env bash
# start-all.sh - checks this machine, then starts engines, router and nginx in order. What runs stays as it is.
#   --sim           simulated engines: no GPU, no model, no .env needed
#   --only NAME     one part alone: an engine of ENGINES, router or nginx
#   --timeout S     how long each part may take to become ready (default 1800, with --sim 120)
#   --check         only the checks
# Settings: deploy/.env. Exit status 0: everything is healthy. 1: one sentence on stderr says what is not.
set -euo pipefail
# shellcheck source=deploy/lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=deploy/lib/checks.sh
. "$DEPLOY/lib/checks.sh"
# shellcheck source=deploy/lib/wait.sh
. "$DEPLOY/lib/wait.sh"

SIM=no
ONLY=""
CHECK_ONLY=no
TIMEOUT_S=""
JOBS=()

usage() { sed -n '2,7s/^# \{0,1\}//p' "$0"; }

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --sim) SIM=yes ;;
      --check) CHECK_ONLY=yes ;;
      --only) [ $# -ge 2 ] || fail "--only needs a name: an engine, router or nginx"; ONLY=$2; shift ;;
      --timeout) [ $# -ge 2 ] || fail "--timeout needs a number of seconds"; TIMEOUT_S=$2; shift ;;
      -h | --help) usage; exit 0 ;;
      *) fail "unknown option $1; see start-all.sh --help" ;;
    esac
    shift
  done
  if [ "$SIM" = yes ]; then : "${TIMEOUT_S:=120}"; else : "${TIMEOUT_S:=1800}"; fi
  [[ $TIMEOUT_S =~ ^[1-9][0-9]*$ ]] || fail "--timeout is '$TIMEOUT_S': write a whole number of seconds"
}

selected() { [ -z "$ONLY" ] || [ "$ONLY" = "$1" ]; }

selected_engines() {
  local name
  for name in $(engines); do if selected "$name"; then echo "$name"; fi; done
}

# -- before ------------------------------------------------------------------------------------

check_only_name() {
  case " $(engines) router nginx " in
    *" $ONLY "*) ;;
    *) fail "--only $ONLY: there is no such part; there are $(engines), router and nginx" ;;
  esac
}

check_all() {
  check_env
  if [ -n "$ONLY" ]; then check_only_name; fi
  require_docker
  check_compose
  check_engine_names
  check_no_mixture
  if [ "$SIM" = no ] && [ -n "$(selected_engines)" ]; then
    check_nvidia_runtime
    # shellcheck disable=SC2046  # names are words
    check_gpus $(selected_engines)
    check_model_cache
  fi
  if selected nginx; then
    check_ports
    check_tls
  fi
  if [ "$SIM" = yes ]; then check_disk "$(setting MIN_FREE_GB 2)"; else check_disk "$(setting MIN_FREE_GB 40)"; fi
}

# -- what the compose files take for granted ---------------------------------------------------

ensure_network() {
  docker network inspect "$NETWORK" >/dev/null 2>&1 || docker network create "$NETWORK" >/dev/null ||
    fail "the network $NETWORK cannot be made: see the line above"
}

ensure_volume() { docker volume create "$1" >/dev/null || fail "the volume $1 cannot be made: see the line above"; }

# Simulated use must not end up in the accounts of the real one.
ensure_volumes() {
  if [ "$SIM" = yes ]; then export STATE_VOLUME=inference-state-sim; else export STATE_VOLUME=inference-state; fi
  ensure_volume "$STATE_VOLUME"
  if [ "$SIM" = no ] && [ "$(setting MODEL_CACHE model-cache)" = model-cache ]; then ensure_volume "$MODEL_VOLUME"; fi
}

# For the engines' keys as files for the router, which runs as another user: readable ones in a folder that is not.
ensure_secrets_folder() {
  mkdir -p "$RUN/secrets"
  chmod 755 "$RUN/secrets"
}

# write_secret ENGINE: as deploy/.env has it now. Only where that engine is started: one that goes on with its
# old key must go on being asked with it.
write_secret() {
  local name=$1 key file
  key=$(setting "$(variable_of "$name" API_KEY)" "")
  file=$RUN/secrets/$name-api-key
  if [ -z "$key" ]; then
    rm -f "$file"
  elif [ ! -e "$file" ] || [ "$(cat "$file")" != "$key" ]; then
    printf '%s\n' "$key" >"$file.new"
    chmod 644 "$file.new"
    mv "$file.new" "$file"
  fi
}

ensure_certificate() {
  if [ -n "$(setting TLS_DIR "")" ] || [ -e "$RUN/tls/cert.pem" ]; then return; fi
  # shellcheck disable=SC2046  # names are words
  "$ROOT/nginx/self-signed.sh" "$RUN/tls" $(setting TLS_NAMES localhost) || fail "there is no certificate for nginx: set TLS_DIR in deploy/.env"
}

# With an unchanged checkout every step comes from the cache, and the image stays the same.
ensure_router_image() {
  local image before
  image=$(setting ROUTER_IMAGE vllm-compose-router:local)
  if [ "$(setting ROUTER_BUILD yes)" != yes ]; then
    docker image inspect "$image" >/dev/null 2>&1 || docker pull "$image" || fail "the image $image (ROUTER_IMAGE) cannot be pulled: see the line above"
    return
  fi
  before=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null || true)
  if [ -z "$before" ]; then say "router image     building $image"; fi
  local arguments=(--build-arg "BASE_IMAGE=$(setting BASE_IMAGE python:3.11-slim)")
  if [ -n "${PIP_INDEX_URL:-}" ]; then arguments+=(--build-arg PIP_INDEX_URL); fi
  docker build -q "${arguments[@]}" -t "$image" -f "$DEPLOY/Dockerfile" "$ROOT" >"$RUN/build.log" 2>&1 || {
    tail -n 20 "$RUN/build.log" >&2
    fail "the router's image cannot be built: see the lines above (without a network: deploy/wheelhouse/README.md)"
  }
  [ "$(docker image inspect -f '{{.Id}}' "$image")" = "$before" ] || say "router image     built $image ($SECONDS s)"
}

# -- starting ----------------------------------------------------------------------------------

# Gets the images of a service that are not here, and says so: that may take longer than all the rest.
pull_missing() {
  local name=$1 file=$2 service=$3 image
  for image in $(compose "$file" config --images "$service" 2>/dev/null); do
    if docker image inspect "$image" >/dev/null 2>&1; then continue; fi
    say "$(printf '%-16s pulling %s (%s s)' "$name" "$image" "$SECONDS")"
    docker pull -q "$image" >/dev/null || fail "the image $image cannot be pulled: see the line above"
  done
}

# What to do about the commonest ways in which Compose fails.
remedy() {
  if grep -q "Pool overlaps" "$1"; then
    printf 'another network has these addresses: set FRONT_SUBNET, ROUTER_ADDRESS and NGINX_ADDRESS, or OBSERVE_SUBNET, in deploy/.env'
  elif grep -q "contain the IP address" "$1"; then
    printf 'its address is outside of the network: set ROUTER_ADDRESS and NGINX_ADDRESS within FRONT_SUBNET in deploy/.env, then deploy/stop-all.sh and start again'
  elif grep -q "Address already in use" "$1"; then
    printf 'another container has its address (docker network inspect inference-front shows which): deploy/stop-all.sh, then start again'
  elif grep -q "Conflict. The container name" "$1"; then
    printf 'a container of that name is there that these scripts did not start: remove it with docker rm'
  elif grep -qi "could not select device driver\|no such device\|unknown device" "$1"; then
    printf 'Docker cannot give it its GPU: see nvidia-container-toolkit (docker run --rm --gpus all ... nvidia-smi)'
  else
    printf 'see the lines above'
  fi
}

# bring_up NAME FILE SERVICE CONTAINER: started and ready, or a sentence and status 1.
bring_up() {
  local name=$1 file=$2 service=$3 container=$4
  pull_missing "$name" "$file" "$service"
  if ! compose "$file" up -d "$service" >"$RUN/$name.log" 2>&1; then
    tail -n 5 "$RUN/$name.log" >&2
    fail "$name could not be started: $(remedy "$RUN/$name.log")"
  fi
  await "$name" "$container" $((SECONDS + TIMEOUT_S))
}

start_engine() {
  local name=$1 file
  file=$(file_of "$name")
  pull_missing "$name" "$file" "$name" # first: it may take long, and the key is to change with the engine
  write_secret "$name"
  bring_up "$name" "$file" "$name" "vllm-$name"
}

start_engines() {
  local name job failed=0
  for name in $(selected_engines); do
    start_engine "$name" &
    JOBS+=("$!")
  done
  for job in ${JOBS[@]+"${JOBS[@]}"}; do wait "$job" || failed=1; done
  JOBS=()
  [ "$failed" -eq 0 ] || fail "not every engine is ready: the router was not started; mend what is said above and run this again"
}

# Healthy for the router too: found by their labels, and answering.
await_services() {
  local deadline=$((SECONDS + TIMEOUT_S)) told
  # shellcheck disable=SC2046  # names are words
  until told=$(docker exec -i "$GATEWAY" python3 -I - $(engines) <"$DEPLOY/lib/services.py" 2>&1); do
    [ "$SECONDS" -lt "$deadline" ] || fail "the router does not use every engine: $told; see deploy/logs.sh router"
    sleep "$POLL_S"
  done
  say "$(printf '%-16s every engine is in use (%s s)' router "$SECONDS")"
}

start_router() {
  bring_up router router router "$GATEWAY" || fail "the router is not ready: mend what is said above and run this again"
  if [ -z "$ONLY" ]; then await_services; fi
}

start_nginx() {
  docker network inspect inference-front >/dev/null 2>&1 || fail "nginx needs the router's network: start the router first (start-all.sh)"
  bring_up nginx nginx nginx inference-nginx || fail "nginx is not ready: mend what is said above and run this again"
}

# -- after -------------------------------------------------------------------------------------

url() {
  local port
  port=$(setting NGINX_HTTPS_PORT 443)
  if [ "$port" = 443 ]; then printf 'https://localhost'; else printf 'https://localhost:%s' "$port"; fi
}

# The first model that is served to whoever has no key; empty if a key is asked for.
open_model() {
  docker exec "$GATEWAY" python3 -I -c "import json, urllib.request as r; print(json.load(r.urlopen('http://127.0.0.1:8000/v1/models', timeout=5))['data'][0]['id'])" 2>/dev/null || true
}

tell_urls() {
  local trust="" key="" model
  if [ -z "$(setting TLS_DIR "")" ]; then trust=" --cacert $RUN/tls/cert.pem"; fi
  model=$(open_model)
  if [ -z "$model" ]; then key=" -H \"authorization: Bearer \$KEY\""; fi
  say
  say "API      $(url)/v1"
  say "health   $(url)/health"
  say "status   deploy/status.sh"
  say
  say "curl -N$trust $(url)/v1/chat/completions -H 'content-type: application/json'$key \\"
  say "  -d '{\"model\": \"${model:-Qwen/Qwen2.5-7B-Instruct}\", \"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'"
  if [ -n "$model" ]; then
    say
    say "Nobody needs a key: whoever reaches the port may use every model. To change that:"
    say "  docker exec $GATEWAY router keys create --org NAME $IN_GATEWAY"
  fi
}

end_jobs() {
  local job
  for job in ${JOBS[@]+"${JOBS[@]}"}; do kill "$job" 2>/dev/null || true; done
}

main() {
  parse "$@"
  check_all
  if [ "$CHECK_ONLY" = yes ]; then
    say "every check passed"
    return
  fi
  claim
  trap end_jobs EXIT
  ensure_network
  ensure_volumes
  ensure_secrets_folder
  if [ "$SIM" = yes ] || selected router; then ensure_router_image; fi
  start_engines
  if selected router; then start_router; fi
  if selected nginx; then
    ensure_certificate
    start_nginx
  fi
  if [ -z "$ONLY" ]; then tell_urls; fi
}

main "$@"
