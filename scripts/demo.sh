#!/usr/bin/env bash
# Distil a student on this machine, with no GPU and no data set: a few minutes on two CPU cores after installation.
# Sets up a virtual environment, and runs `mipkd demo` in this checkout.
set -euo pipefail
source "$(dirname "$0")/setup.sh"

mipkd demo
