"""`python -m tiepoint`."""

from __future__ import annotations

from tiepoint.cli import main

if __name__ == "__main__":
    main()
