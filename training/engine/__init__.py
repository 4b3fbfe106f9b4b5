"""What moves a training step: ranks, precision, optimiser, checkpoints, metrics."""
