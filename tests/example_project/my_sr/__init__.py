"""Importing the package registers everything that option files name."""

from importlib import import_module
from pathlib import Path

for file in sorted(Path(__file__).parent.glob('*_*.py')):
    if file.stem != '__init__':
        import_module(f'my_sr.{file.stem}')
