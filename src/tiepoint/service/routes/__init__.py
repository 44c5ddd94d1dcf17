"""The routes, one module for each group.

A new route is a module with a `router` here, listed in `ROUTERS`.
"""

from tiepoint.service.routes import compare, detect, health, match, register

ROUTERS = (detect.router, match.router, register.router, compare.router, health.router)
