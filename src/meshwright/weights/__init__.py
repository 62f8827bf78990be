"""Weights of the reconstruction models, in and out: load, save, convert, or start a training from them.

A file's content tells what it is: the own form (safetensors), a published checkpoint, a DINO or OpenLRM encoder, or
MindSpore's form of these. Known names are fetched from the Hugging Face hub.
"""

from meshwright.weights.convert import Conversion, convert
from meshwright.weights.hub import find_weights
from meshwright.weights.load import load_model
from meshwright.weights.read import Checkpoint, read_checkpoint, read_tensors
from meshwright.weights.start import Start, start_from
from meshwright.weights.write import DTYPES, save_model

__all__ = [
    "DTYPES",
    "Checkpoint",
    "Conversion",
    "Start",
    "convert",
    "find_weights",
    "load_model",
    "read_checkpoint",
    "read_tensors",
    "save_model",
    "start_from",
]
