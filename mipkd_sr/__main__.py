"""``python -m mipkd_sr``: the command ``mipkd``."""

import sys

from mipkd_sr.cli import main

sys.exit(main())
