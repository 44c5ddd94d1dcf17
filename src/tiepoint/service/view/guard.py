"""The secret of one page: a random token, in the URL that opens it and then in a cookie."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from tiepoint.service.security import Entrance
from tiepoint.service.settings import LOOPBACK_NAMES

TOKEN_BYTES = 24


@dataclass(frozen=True)
class Guard:
    """The secret of one session, and where it is served.

    Attributes:
        port: Port of the local process.
        token: Part of the URL that opens the page, and then the value of a cookie.
    """

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)

    @property
    def url(self) -> str:
        """The URL that opens the page."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie; with the port, because cookies of all ports are shared."""
        return f"tiepoint-view-{self.port}"

    @property
    def entrance(self) -> Entrance:
        """Who may ask: requests to a name of this machine, with the token."""
        return Entrance((self.token,), frozenset(LOOPBACK_NAMES), self.cookie)
