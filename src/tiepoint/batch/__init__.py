"""Many images -> a features file each, or one for all; many pairs -> one matches file.

`expand` lists the inputs, a `Store` keeps the results, `run` does the work and yields an
`ImageRecord` for each input. `match_pairs` does the same for pairs of images. Both resume where an
earlier run stopped, and one bad image harms no other.
"""

from __future__ import annotations

from tiepoint.batch.detect_batch import DetectBatch as DetectBatch
from tiepoint.batch.inputs import Input as Input
from tiepoint.batch.inputs import Unreadable as Unreadable
from tiepoint.batch.inputs import expand as expand
from tiepoint.batch.pairs import match_pairs as match_pairs
from tiepoint.batch.plan import Task as Task
from tiepoint.batch.plan import plan_input as plan_input
from tiepoint.batch.records import ImageRecord as ImageRecord
from tiepoint.batch.records import PairRecord as PairRecord
from tiepoint.batch.run import run as run
from tiepoint.batch.run import store_result as store_result
from tiepoint.batch.stores import FolderStore as FolderStore
from tiepoint.batch.stores import H5Store as H5Store
from tiepoint.batch.stores import SingleFileStore as SingleFileStore
from tiepoint.batch.stores import Store as Store
