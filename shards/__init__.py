"""The data contract between the pipeline and the trainer: what an MFHQ data set is, written, read and verified."""
