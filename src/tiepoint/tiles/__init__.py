"""Detection in images of any size, tile by tile, and in streams of such images."""
