"""Registration of images of any size: coarse to fine, in windows, with smooth deformations."""
