"""Find the units that do nothing useful, plan their removal, and carry it out on the graph."""
