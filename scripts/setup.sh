# Sourced by demo.sh and test.sh: makes the virtual environment .venv in the checkout, once, and activates it.
# PYTHON=/path/to/python chooses the Python (3.10 to 3.12; basicsr cannot be installed on a newer one).

cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10}; do
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.10, 3.11 or 3.12 was found; install one, or name it with PYTHON=..." >&2
    return 1
}

install_into_venv() {
    local python
    python=$(find_python)
    echo "Setting up .venv with $("$python" --version); this downloads PyTorch and takes a few minutes, once."
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # basicsr's build asks for torch, cython and numpy; with these here first it need not download torch a second time
    .venv/bin/python -m pip install --quiet --upgrade pip setuptools wheel hatchling cython numpy
    .venv/bin/python -m pip install --quiet torch torchvision
    .venv/bin/python -m pip install --quiet --no-build-isolation basicsr==1.4.2
    .venv/bin/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
    cp pyproject.toml .venv/installed.toml
}

# installed.toml is written last: an interrupted installation is taken up again, a changed pyproject.toml is followed
if ! cmp --silent pyproject.toml .venv/installed.toml; then
    install_into_venv
fi
source .venv/bin/activate
