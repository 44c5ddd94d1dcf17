"""The detector's training: network, losses, sampled points and the held-out benchmark."""
