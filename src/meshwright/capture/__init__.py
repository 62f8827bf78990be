"""Files to `Views`: what an input is, which cameras took its pictures, and where the object is in them.

Others need only `load_views`.
"""

from meshwright.capture.load import load_views

__all__ = ["load_views"]
