"""A learned matcher in LightGlue's layout: features of two images -> matches and matchability."""
