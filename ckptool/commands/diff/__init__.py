"""diff: two checkpoints, compared."""
