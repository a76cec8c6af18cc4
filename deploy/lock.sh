#!/usr/bin/env bash
# Pin requirements/*.txt, with hashes, from pyproject.toml. Versions already pinned stay unless --upgrade is given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
compile() {
  .venv/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links "$@" pyproject.toml
}
compile "$@" --extra host --output-file requirements/host.txt
compile "$@" --extra server --output-file requirements/server.txt
compile "$@" --all-extras --build-deps-for editable --output-file requirements/dev.txt
