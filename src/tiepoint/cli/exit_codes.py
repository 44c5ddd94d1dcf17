"""Exit codes of the commands."""

from __future__ import annotations

DONE = 0
FAILED = 1
"""Some inputs failed, or an error stopped the run."""
USAGE = 2
NOTHING_READABLE = 3
NOT_REGISTERED = 4
"""`tiepoint register`: both images were read, but they do not align."""
INTERRUPTED = 130
TERMINATED = 143
