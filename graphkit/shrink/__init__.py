"""Makes a failing model small: delta debugging over the nodes of its graph, and the folder for a bug report."""
