"""`python run_tool.py COMMAND …`: a tool with the test data set registered, without dropout on request."""

import os
import sys

import discs  # noqa: F401  registers the data set, backbone and protocol
import torch

from mtvision.cli.main import call

if os.environ.get("WITHOUT_DROPOUT"):
    torch.nn.Dropout.forward = lambda self, x: x  # type: ignore[method-assign]
sys.exit(call(sys.argv[1], sys.argv[2:]))
