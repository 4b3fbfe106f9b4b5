"""The data contract between pipeline and trainer: the format of an MFHQ dataset, its writer, reader, verifier."""
