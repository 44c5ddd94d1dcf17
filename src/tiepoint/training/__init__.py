"""Training from generated scenes: scenes and pairs (no torch), losses, the trainer.

Scenes and pairs: `settings` decides the data; `textures`, `canvas`, `leaves`, `shapes`, `glyphs`,
`repeats` and `photographs` draw flat sheets with exact corners; `scenes` keeps a bank of them;
`cameras`, `boxes` and `render` look at them twice; `photometry`, `labels` and `structure` finish a
view; `pairs` brings all of it together, `loader` draws pairs in worker processes, `statistics`
measures them.
"""
