"""Matches -> a transform between two images, its uncertainty, and a verdict."""
