"""Using a trained student outside of training: loading it, upscaling with it, exporting it."""
