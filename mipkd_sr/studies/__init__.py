"""Studies: variants of a recipe over several seeds, trained, tested and reported beside each other."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)
