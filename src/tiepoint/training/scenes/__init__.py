"""Generated training pairs: scenes, views of them, and their ground truth. No torch."""
