"""Any source -> an upright image and its mask.

Sources are files, URLs, bytes, file objects, PIL images, NumPy arrays and torch tensors.
"""

from tiepoint.images.reading import SourceImage as SourceImage
from tiepoint.images.reading import read as read
