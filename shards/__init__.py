"""The data contract between pipeline and trainer: what an MFHQ data set is, written, read and verified."""
