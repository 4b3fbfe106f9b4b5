"""The networks: the encoder and the decoders that teach it."""
