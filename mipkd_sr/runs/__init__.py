"""Run: one run's folder, the one place that knows its files, its options, what it computes, and its lock."""
