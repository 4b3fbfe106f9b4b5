"""How a workflow is configured: typed sections, read from YAML, validated, with an error for every invalid key."""
