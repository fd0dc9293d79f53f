#!/usr/bin/env bash
# Everything that has to hold before a change is taken: format, lint, types, tests. Under 15 minutes on two cores.
# Arguments go to pytest: `bash scripts/test.sh tests/archs/test_staged.py -k EDSR` runs some of the tests alone.
set -euo pipefail
source "$(dirname "$0")/setup.sh"

ruff format --check .
ruff check .
mypy
pytest --numprocesses auto --dist worksteal "$@"
