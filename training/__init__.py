"""Trains the Omni-ID encoder on MFHQ shards, through torchrun, on any number of machines."""
