"""Which slices of which tensors must leave together, and how to take them out."""
