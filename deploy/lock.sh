#!/usr/bin/env bash
# Pin requirements/*.txt (from pyproject.toml) and bench/keylime.txt, with hashes. Pinned versions stay unless --upgrade is given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
compile() {
  .venv/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links "$@"
}
compile "$@" --extra host --output-file requirements/host.txt pyproject.toml
compile "$@" --extra kerberos --output-file requirements/kerberos.txt pyproject.toml
compile "$@" --extra token --output-file requirements/token.txt pyproject.toml
compile "$@" --extra server --output-file requirements/server.txt pyproject.toml
compile "$@" --all-extras --build-deps-for editable --output-file requirements/dev.txt pyproject.toml
compile "$@" --output-file tests/fuzz/atheris.txt tests/fuzz/atheris.in
compile "$@" --output-file bench/keylime.txt bench/keylime.in
