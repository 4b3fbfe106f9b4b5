"""How a workflow is configured: typed sections, read from YAML, refused in words when anything is wrong."""
