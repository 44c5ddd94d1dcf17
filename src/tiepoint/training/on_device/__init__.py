"""Training pairs made on a device, a whole batch at once: the twins of `training.scenes`.

Nothing here waits for the device, and no step loops over the images of a batch.

- `transfer`, `bank`, `arrangement`: scenes and layouts of the workers, on the device.
- `rendering`: views, their corners and the flow between them.
- `exact`: float32 arithmetic without rounding to fewer bits.
- `exposures`, `resampling`, `jpeg`, `exposure`: light, lens and sensor of each view.
- `rasters`, `view_labels`, `texture_points`, `labels`: the keypoint labels of each view.
- `source`: all of it, as batches for training.
"""
