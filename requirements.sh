#!/bin/sh
# Pins every dependency by hash, for every platform, without naming an index. Needs uv.
set -eu
cd "$(dirname "$0")"

pin() {
    output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
        --output-file "$output" "$@"
}

# setuptools builds the editable install, so it is pinned with the rest.
echo "setuptools>=77" | pin requirements.lock pyproject.toml --extra cpu -
echo "setuptools>=77" | pin requirements-dev.lock pyproject.toml --extra dev -
# hnswlib has no wheels; pybind11 and numpy are what it is built with.
printf 'hnswlib>=0.8\n' | pin requirements-peer.lock -
