"""Decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.models.decoders.concat import ConcatDecoder
    from mtvision.models.decoders.decoder import Decoder
    from mtvision.models.decoders.invpt import InvPTDecoder
    from mtvision.models.decoders.medusa import MedusaDecoder
    from mtvision.models.decoders.mlore import MLoREDecoder
    from mtvision.models.decoders.mti_net import MTINetDecoder
    from mtvision.models.decoders.mtmamba import MTMambaDecoder
    from mtvision.models.decoders.mtmamba_plus import MTMambaPlusDecoder
    from mtvision.models.decoders.pad_net import PADNetDecoder
    from mtvision.models.decoders.parallel import ParallelDecoder
    from mtvision.models.decoders.task_expert import TaskExpertDecoder
    from mtvision.models.decoders.task_prompter import TaskPrompterDecoder
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "ConcatDecoder",
    "Decoder",
    "InvPTDecoder",
    "MLoREDecoder",
    "MTINetDecoder",
    "MTMambaDecoder",
    "MTMambaPlusDecoder",
    "MedusaDecoder",
    "PADNetDecoder",
    "ParallelDecoder",
    "TaskExpertDecoder",
    "TaskPrompterDecoder",
]
