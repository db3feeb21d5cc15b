"""Features computed on many machines: the only place where Ray is imported."""
