"""Stitching: several images -> one panorama, and the images that do not belong."""
