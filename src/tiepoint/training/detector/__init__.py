"""Training a detector: network, losses, sampling and the benchmark that selects a state."""
