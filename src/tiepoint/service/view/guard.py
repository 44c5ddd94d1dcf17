"""Who may use the page: a random token, this machine's own address, and strict headers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

TOKEN_BYTES = 24

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer."""


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
    def hosts(self) -> tuple[str, str]:
        """Values of the header Host that name this process."""
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}"

    def knows_host(self, host: str | None, origin: str | None) -> bool:
        """Whether a request was sent to this process, and by its own page.

        Another name that leads to 127.0.0.1 is refused, which stops DNS rebinding.
        """
        if host not in self.hosts:
            return False
        return origin is None or origin == f"http://{host}"

    def knows(self, token: str | None) -> bool:
        """Whether this is the token; takes as long for every wrong one."""
        return token is not None and secrets.compare_digest(token.encode(), self.token.encode())
