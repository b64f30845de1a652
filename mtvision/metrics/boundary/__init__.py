"""The boundary benchmark (odsF) without MATLAB."""
