"""What moves a training step: processes, precision, optimiser, checkpoints, metrics."""
