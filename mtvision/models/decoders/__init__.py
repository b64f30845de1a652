"""Decoders; importing this package registers them."""

from __future__ import annotations

from mtvision.models.decoders.concat import ConcatDecoder
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.decoders.invpt import InvPTDecoder
from mtvision.models.decoders.mlore import MLoREDecoder
from mtvision.models.decoders.mti_net import MTINetDecoder
from mtvision.models.decoders.mtmamba import MTMambaDecoder
from mtvision.models.decoders.mtmamba_plus import MTMambaPlusDecoder
from mtvision.models.decoders.pad_net import PADNetDecoder
from mtvision.models.decoders.parallel import ParallelDecoder
from mtvision.models.decoders.task_expert import TaskExpertDecoder
from mtvision.models.decoders.task_prompter import TaskPrompterDecoder

__all__ = [
    "ConcatDecoder",
    "Decoder",
    "InvPTDecoder",
    "MLoREDecoder",
    "MTINetDecoder",
    "MTMambaDecoder",
    "MTMambaPlusDecoder",
    "PADNetDecoder",
    "ParallelDecoder",
    "TaskExpertDecoder",
    "TaskPrompterDecoder",
]
