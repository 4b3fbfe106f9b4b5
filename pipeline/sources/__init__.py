"""One adapter per dataset: each lists its videos as manifest rows."""
