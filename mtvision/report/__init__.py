"""Records, tables and costs; importing it does not import torch."""
