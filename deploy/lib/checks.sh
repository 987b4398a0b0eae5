# shellcheck shell=bash
# What must be true before anything is started. Each check ends with one sentence: what is wrong, what to do.
# No grep -q behind a pipe: it ends at the first match, and with pipefail what is cut off there counts as failed.

MIN_COMPOSE=2.20
FREE_GPU_MIB=1024 # the driver alone takes a few hundred

check_compose() {
  local version
  version=$(docker compose version --short 2>/dev/null) ||
    fail "docker compose is not there: install the plugin docker-compose-plugin, version $MIN_COMPOSE or newer"
  version=${version#v}
  [ "$(printf '%s\n' "$MIN_COMPOSE" "$version" | sort -V | head -n 1)" = "$MIN_COMPOSE" ] ||
    fail "docker compose is $version: install $MIN_COMPOSE or newer"
}

# Real engines need somebody to have looked through the settings; simulated ones do with the example's.
check_env() {
  if [ -r "$ENV_FILE" ]; then return; fi
  if [ "$SIM" = yes ]; then
    ENV_FILE=$EXAMPLE
    say "deploy/.env is not there: the settings are those of deploy/.env.example"
    return
  fi
  fail "deploy/.env is missing: cp deploy/.env.example deploy/.env, and look through it"
}

check_engine_names() {
  local name
  for name in $(engines); do
    [[ $name =~ ^[a-z0-9][a-z0-9_-]*$ ]] ||
      fail "ENGINES in deploy/.env has '$name': write names of lower-case letters, digits, - and _"
    [ -r "$DEPLOY/compose.$(file_of "$name").yaml" ] ||
      fail "ENGINES in deploy/.env names $name, and deploy/compose.$name.yaml is not there: write it after compose.chat.yaml, or take $name out"
  done
}

# One name is either an engine or a simulated one.
check_no_mixture() {
  local name project wanted
  for name in $(engines); do
    wanted=inference-$(file_of "$name")
    project=$(inspect "vllm-$name" '{{index .Config.Labels "com.docker.compose.project"}}' "$wanted")
    [ "$project" = "$wanted" ] ||
      fail "a container vllm-$name of another set-up ('${project:-by hand}') is there: deploy/stop-all.sh takes down what these scripts started; remove any other with docker rm"
  done
}

check_nvidia_runtime() {
  docker info -f '{{json .Runtimes}} {{json .}}' 2>/dev/null | grep -i '"nvidia"\|nvidia\.com/gpu' >/dev/null ||
    fail "Docker has no NVIDIA runtime: install nvidia-container-toolkit, then nvidia-ctk runtime configure --runtime=docker and restart Docker"
}

# gpu_table: "index memory.used" in MiB, one line a GPU.
gpu_table() { nvidia-smi --query-gpu=index,memory.used --format=csv,noheader,nounits | tr -d ' ' | tr ',' ' '; }

check_gpus() {
  command -v nvidia-smi >/dev/null ||
    fail "this host has no NVIDIA GPU or no driver (nvidia-smi is not there): install the driver, or try deploy/start-all.sh --sim"
  local table name
  table=$(gpu_table 2>/dev/null) && [ -n "$table" ] ||
    fail "nvidia-smi shows no GPU: run nvidia-smi and mend the driver, or try deploy/start-all.sh --sim"
  for name in "$@"; do check_gpu "$name" "$table"; done
}

check_gpu() {
  local name=$1 table=$2 variable index used
  variable=$(variable_of "$name" GPU)
  index=$(setting "$variable" "$(default_gpu "$name")")
  [[ $index =~ ^[0-9]+$ ]] || fail "$variable is '$index': write the index of a GPU as nvidia-smi shows it, in deploy/.env"
  used=$(awk -v index_="$index" '$1 == index_ {print $2}' <<<"$table")
  [ -n "$used" ] ||
    fail "$variable is $index, and this host has GPU $(awk '{printf "%s%s", s, $1; s = ", "}' <<<"$table"): correct it in deploy/.env"
  if is_running "vllm-$name"; then return; fi # it is the one that uses it
  [[ ! $used =~ ^[0-9]+$ ]] || [ "$used" -lt "$FREE_GPU_MIB" ] ||
    fail "GPU $index ($variable) is in use ($used MiB): end what runs there (nvidia-smi shows it), or choose another in deploy/.env"
}

default_gpu() { case $1 in text2sql) printf 0 ;; chat) printf 1 ;; *) printf '' ;; esac; }

# Ports (decimal) on which this host listens.
listening_ports() {
  local hex
  # shellcheck disable=SC2013  # words are what is wanted
  for hex in $(awk '$4 == "0A" {sub(/.*:/, "", $2); print $2}' /proc/net/tcp /proc/net/tcp6 2>/dev/null | sort -u); do
    printf '%d\n' "0x$hex"
  done
}

check_port() {
  local variable=$1 port=$2
  if ! [[ $port =~ ^[0-9]+$ ]] || [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
    fail "$variable is '$port': write a port from 1 to 65535 in deploy/.env"
  fi
  if docker port inference-nginx 2>/dev/null | grep ":$port\$" >/dev/null; then return; fi # our own
  ! listening_ports | grep -x "$port" >/dev/null ||
    fail "port $port ($variable) is taken: end what listens there (ss -ltnp 'sport = :$port'), or set another in deploy/.env"
}

check_ports() {
  local http https
  http=$(setting NGINX_HTTP_PORT 80)
  https=$(setting NGINX_HTTPS_PORT 443)
  [ "$http" != "$https" ] || fail "NGINX_HTTP_PORT and NGINX_HTTPS_PORT are both $http: write two ports in deploy/.env"
  check_port NGINX_HTTP_PORT "$http"
  check_port NGINX_HTTPS_PORT "$https"
}

check_tls() {
  local dir file
  dir=$(setting TLS_DIR "")
  [ -n "$dir" ] || return 0
  [[ $dir = /* ]] || fail "TLS_DIR is '$dir': write an absolute path in deploy/.env"
  for file in cert.pem key.pem; do
    [ -e "$dir/$file" ] ||
      fail "TLS_DIR has no $file: put certificate (cert.pem) and key (key.pem) into $dir, or leave TLS_DIR empty for a self-signed one"
  done
}

# check_disk GIB: free where Docker keeps images and volumes; not asked where that is another machine.
check_disk() {
  local wanted=$1 dir free
  dir=$(docker info -f '{{.DockerRootDir}}' 2>/dev/null)
  [ -d "$dir" ] || return 0
  free=$(df -Pk "$dir" | awk 'NR == 2 {print int($4 / 1048576)}')
  [ "$free" -ge "$wanted" ] ||
    fail "$dir has $free GiB free, and $wanted are needed for images and models: make room (docker system df), or set MIN_FREE_GB"
}

check_model_cache() {
  local cache
  cache=$(setting MODEL_CACHE model-cache)
  case $cache in
    model-cache) ;;
    /*) [ -d "$cache" ] || fail "MODEL_CACHE is $cache, which is no folder: make it, or write model-cache for a Docker volume" ;;
    *) fail "MODEL_CACHE is '$cache': write model-cache or an absolute path in deploy/.env" ;;
  esac
}
