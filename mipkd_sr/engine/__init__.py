"""What runs them: option files, training loop, checkpoints, evaluation, reports."""
