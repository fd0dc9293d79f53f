"""What the methods are made of: the step, the frozen teacher, positions, mixers and masks."""
