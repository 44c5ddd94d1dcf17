"""What the commands exit with."""

from __future__ import annotations

DONE = 0
FAILED = 1
"""Some inputs failed, or the run was stopped by an error."""
USAGE = 2
NOTHING_READABLE = 3
NOT_REGISTERED = 4
"""`tiepoint register`: both images were read, and do not line up."""
INTERRUPTED = 130
TERMINATED = 143
