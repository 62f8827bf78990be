"""The object in cluttered pictures from known cameras, found in all of them together, without a download.

`segment_together` alternates colour models, cuts in each picture and a shape on which the cuts agree; most of the
background is known from the table's picture from above.
"""

from meshwright.capture.segmentation.together import Segmented, segment_together

__all__ = ["Segmented", "segment_together"]
