#!/usr/bin/env bash
# Install Keylime's verifier into .venv-keylime, where nothing of Guardhouse runs. A second run does nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for needed in tpm2-tools libefivar1; do  # Keylime parses boot logs with their help
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$needed" 2>/dev/null) == installed ]] && continue
  echo "keylime: the Debian package $needed is missing: apt-get install tpm2-tools libefivar1" >&2
  exit 1
done
from=$(sha256sum bench/keylime.txt)
[[ -e .venv-keylime/from && $(<.venv-keylime/from) == "$from" ]] && exit
echo "keylime: installing into .venv-keylime"
python3 -m venv --clear .venv-keylime
.venv-keylime/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r bench/keylime.txt
echo "$from" >.venv-keylime/from
