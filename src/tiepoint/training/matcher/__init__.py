"""The learned matcher's training: a bank of features with exact positions, losses, runs."""
