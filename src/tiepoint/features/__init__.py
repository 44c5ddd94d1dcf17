"""The results that users hold, and their ways to other libraries."""

from __future__ import annotations

from tiepoint.features.matches import Matches as Matches
from tiepoint.features.matches import covariances_of as covariances_of
from tiepoint.features.provenance import Provenance as Provenance
from tiepoint.features.provenance import Rules as Rules
from tiepoint.features.result import Features as Features
