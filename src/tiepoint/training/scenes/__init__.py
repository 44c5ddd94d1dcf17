"""Generated training pairs: scenes, two views of each, and exact ground truth. No torch.

Modules in reading order:

- `settings`: sizes, mix of kinds, ranges of geometry and photometry.
- `basics`, `draws`: array types, elementary geometry, random draws.
- `textures`, `outlines`: grey values inside a shape, and shapes.
- `canvas`: draws shapes over one another and keeps their corners; gives a `Sheet`.
- `palette`: greys and textures of one scene.
- `leaves`, `shapes`, `glyphs`, `repeats`, `photographs`: one kind of sheet each.
- `cameras`, `render`, `boxes`: homographies, views with their flow, boxes before two cameras.
- `composition`: scenes of all kinds, in a bank.
- `photometry`, `labels`, `texture_labels`: light and camera of a view, and its keypoint labels.
- `packed_exposures`: exposures as rows of numbers, for batches on a device.
- `pairs`, `loader`: training pairs from a seed and an index, and batches of them.
- `stored`, `layouts`, `layout_loader`: what a device makes pairs from; see `training.on_device`.
- `statistics`, `samples`: figures and pictures for `tiepoint scenes`.
"""
