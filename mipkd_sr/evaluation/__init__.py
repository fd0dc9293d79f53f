"""Running networks and measuring them; tables and figures of what was measured."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)
