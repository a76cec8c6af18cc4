#!/usr/bin/env bash
# Bring up all that Guardhouse needs on this machine, step by step, and do nothing twice.
#
# Each step keeps a stamp in .setup/ with the digest of the files that it was done from. A second run finds every
# stamp in place, and needs neither time nor a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .setup
exec 9>.setup/lock
flock 9  # two targets of make may run at once

say() { echo "setup: $*"; }
digest() { sha256sum "$@" | sha256sum | cut -d' ' -f1; }
done_from() { [[ -e .setup/$1 && $(<".setup/$1") == "$2" ]]; }
as_root() { if [[ $EUID -eq 0 ]]; then "$@"; else sudo "$@"; fi; }

missing_packages() {
  local name condition
  while read -r name condition _; do
    [[ -z $name || $name == \#* ]] && continue
    [[ $condition == unless=* ]] && command -v "${condition#unless=}" >/dev/null && continue
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
  done <deploy/apt.txt
}

system_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  [[ ${#missing[@]} -eq 0 ]] && return
  say "installing Debian packages: ${missing[*]}"
  as_root apt-get update -q
  # RUNLEVEL=1: none of them needs to start a service here; tests start private ones.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
}

python_packages() {
  local from
  .venv/bin/python -c '' 2>/dev/null || rm -f .setup/python
  from=$(digest requirements/dev.txt pyproject.toml)
  done_from python "$from" && return
  say "installing Python packages into .venv"
  .venv/bin/python -c '' 2>/dev/null || python3 -m venv --clear .venv
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
  .venv/bin/python -m pip install -qq --require-hashes -r requirements/dev.txt
  .venv/bin/python -m pip install -qq --no-deps --no-build-isolation --no-index -e .
  echo "$from" >.setup/python
}

browser_assets() {
  local from
  from=$(digest package.json package-lock.json deploy/assets.py static/icons.txt)
  [[ -e static/vendor/icons.svg ]] && done_from assets "$from" && return
  say "fetching and building browser assets"
  npm ci --silent --no-audit --no-fund
  .venv/bin/python deploy/assets.py
  echo "$from" >.setup/assets
}

static_files() {
  local from
  from=$(find static requirements/server.txt -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
  [[ -d staticfiles ]] && done_from static "$from" && return
  say "collecting static files"
  GUARDHOUSE_SECRET_KEY=unused .venv/bin/python manage.py collectstatic --noinput --clear --ignore icons.txt --verbosity 0
  echo "$from" >.setup/static
}

system_packages
python_packages
browser_assets
static_files
