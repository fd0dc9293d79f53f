"""What the methods are made of: the step, the frozen teacher, positions, mixers and masks."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)
