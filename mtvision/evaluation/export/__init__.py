"""Trained networks as files that other programs run: ONNX, PyTorch programs, weights with their config."""

from mtvision.evaluation.export.formats import FORMATS, Format
from mtvision.evaluation.export.parity import Parity
from mtvision.evaluation.export.portable import Portable, trace
from mtvision.evaluation.export.writing import Exported, export_network

__all__ = ["FORMATS", "Exported", "Format", "Parity", "Portable", "export_network", "trace"]
