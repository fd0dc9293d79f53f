"""What everything stands on: errors, whole files, checkpoints, seeds, ranks, requests to stop."""
