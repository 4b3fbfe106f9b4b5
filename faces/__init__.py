"""Head-and-face parts shared by the pipeline and the trainer: detection, alignment, landmarks, pose, embedding, mask, quality."""
