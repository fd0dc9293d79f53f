"""What a training step costs: counts, memory, time, and plans."""
