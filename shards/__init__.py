"""The data contract between pipeline and trainer: what an MFHQ dataset is, written, read and verified."""
