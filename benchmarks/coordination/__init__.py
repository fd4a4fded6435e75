"""What a coordinator costs with thousands of nodes: ``python -m benchmarks.coordination``."""
