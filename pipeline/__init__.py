"""From face videos to MFHQ: eight sharp, pose-diverse images per identity, as WebDataset shards."""
