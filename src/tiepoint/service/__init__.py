"""A local process that serves pages and results over HTTP; of the extra `serve`."""
