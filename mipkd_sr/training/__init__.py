"""The training loop and its progress."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)
