"""What the pipeline and the trainer both need of a face: detection, pose, embedding, mask, quality."""
