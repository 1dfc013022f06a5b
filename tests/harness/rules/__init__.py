"""A case for each rewrite rule: a graph, what it becomes, and a near miss."""
