"""Checkpoint folders and Hub repositories <-> `Checkpoint`; the bundled weights."""
