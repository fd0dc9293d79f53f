"""Data: MATLAB's resizing, and the order in which a training run reads its images."""
