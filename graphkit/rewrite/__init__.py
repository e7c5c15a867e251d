"""Changes a graph, keeps its meaning."""
