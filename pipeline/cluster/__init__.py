"""A build on Ray: the cluster it joins, how many processes a node holds, passes, tasks, and nodes that fail."""
