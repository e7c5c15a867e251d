"""Will a target take a model? Rules over the graph, the target's own parser in a child, and the parts it does take."""
