"""Frozen benchmark definitions, looked up by id."""

from collections.abc import Mapping

from mtvision.core import registry
from mtvision.protocols.bsds_sod import BSDS_SOD
from mtvision.protocols.camvid import CAMVID, CAMVID_SAMPLE
from mtvision.protocols.cityscapes import CITYSCAPES3D_TASKPROMPTER, CITYSCAPES_KENDALL, CITYSCAPES_MTMAMBA
from mtvision.protocols.mosd import MOSD
from mtvision.protocols.mtan import CITYSCAPES_MTAN_7, CITYSCAPES_MTAN_19, NYUV2_MTAN
from mtvision.protocols.nyudv2 import NYUD_INVPT, NYUD_SURVEY
from mtvision.protocols.pascal_context import PASCAL_INVPT, PASCAL_SURVEY
from mtvision.protocols.protocol import Protocol, own_protocol
from mtvision.protocols.synthetic import SYNTHETIC, SYNTHETIC_INSTANCES, SYNTHETIC_UNITS

PROTOCOLS: Mapping[str, Protocol] = registry.PROTOCOLS
"""{id: protocol}, the shipped ones and those that `register_protocol` added."""

for _protocol in (
    SYNTHETIC,
    SYNTHETIC_INSTANCES,
    SYNTHETIC_UNITS,
    NYUD_INVPT,
    PASCAL_INVPT,
    CITYSCAPES_MTMAMBA,
    CITYSCAPES3D_TASKPROMPTER,
    CITYSCAPES_KENDALL,
    NYUD_SURVEY,
    PASCAL_SURVEY,
    NYUV2_MTAN,
    CITYSCAPES_MTAN_7,
    CITYSCAPES_MTAN_19,
    MOSD,
    BSDS_SOD,
    CAMVID,
    CAMVID_SAMPLE,
):
    registry.PROTOCOLS.register(_protocol.id, _protocol, by=__name__)


def get_protocol(id: str) -> Protocol:  # noqa: A002  the field's name in records
    """The protocol with that id.

    Raises:
        UnknownNameError: no protocol has that id.

    >>> get_protocol("nyud-invpt").title
    'NYUD-v2, InvPT protocol'
    """
    return PROTOCOLS[id]


def register_protocol(protocol: Protocol, *, by: str, force: bool = False) -> Protocol:
    """Make a protocol of your own available by its id, e.g. to configs.

    Args:
        protocol: e.g. from `own_protocol`.
        by: dotted name of the module that defines it: `__name__`.
        force: replace another one of that id.

    Returns:
        The same protocol.

    Raises:
        TakenNameError: the id is taken and `force` is off.
    """
    registry.PROTOCOLS.register(protocol.id, protocol, by=by, force=force)
    return protocol


__all__ = ["PROTOCOLS", "SYNTHETIC", "Protocol", "get_protocol", "own_protocol", "register_protocol"]
