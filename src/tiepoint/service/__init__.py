"""An HTTP service: images in; features, matches and registrations out. See docs/serve.md."""
