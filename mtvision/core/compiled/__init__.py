"""C++ code of the suite, compiled on first use."""

from mtvision.core.compiled.library import Library, architecture

__all__ = ["Library", "architecture"]
