"""The asset graph, the checks of its tables and the steps that make them."""
