"""Run: one run's folder, the one place that knows its files, its options, what it computes, and its lock."""

import mipkd_sr.compat  # isort: skip  # noqa: F401  (before basicsr, which it repairs)
