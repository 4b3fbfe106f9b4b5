"""One adapter per data set: each lists its videos as manifest rows."""
