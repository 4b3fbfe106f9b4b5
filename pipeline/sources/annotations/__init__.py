"""What the datasets say of their clips: one reader for each official format."""
