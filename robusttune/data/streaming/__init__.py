"""Training samples that are read while training, and never as a whole."""
