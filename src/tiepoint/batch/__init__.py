"""Whole folders of images to whole folders of features: resumable, one bad image harms no other.

`expand` names the inputs, a `Layout` says where each result goes, `run` does the work and yields
a `Record` per image. `match_pairs` does the same for pairs of images.
"""

from __future__ import annotations

from tiepoint.batch.inputs import Input as Input
from tiepoint.batch.inputs import Unreadable as Unreadable
from tiepoint.batch.inputs import expand as expand
from tiepoint.batch.layout import FolderLayout as FolderLayout
from tiepoint.batch.layout import Layout as Layout
from tiepoint.batch.layout import OneFileForAll as OneFileForAll
from tiepoint.batch.layout import SingleFile as SingleFile
from tiepoint.batch.layout import Target as Target
from tiepoint.batch.pairs import PairRecord as PairRecord
from tiepoint.batch.pairs import match_pairs as match_pairs
from tiepoint.batch.worker import Record as Record
from tiepoint.batch.worker import run as run
