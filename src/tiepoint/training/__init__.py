"""Training: drawn scenes (no torch), the detector's losses, the trainer, runs and their history.

`scenes` draws pairs of views with exact corners. `detector` has the trainable network and its
losses. `presets` are the recipes; `runs` trains, resumes, repeats and adapts; `fit_rotation` fits
the matrix for rotated images.
"""
