"""Training pairs made on a device, a whole batch at once: the twins of `training.scenes`.

Nothing here waits for the device, and no step loops over the images of a batch.

- `exact`: float32 arithmetic without rounding to fewer bits.
- `resampling`: blurs and changes of size as matrices, one for each image.
- `exposures`: packed exposures on a device.
- `jpeg`: JPEG compression.
- `exposure`: light, lens and sensor of each view.
"""
