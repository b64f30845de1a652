"""Frozen benchmark definitions, looked up by id."""

from mtvision.core.naming import look_up
from mtvision.protocols.cityscapes import CITYSCAPES3D_TASKPROMPTER, CITYSCAPES_KENDALL, CITYSCAPES_MTMAMBA
from mtvision.protocols.mtan import CITYSCAPES_MTAN_7, CITYSCAPES_MTAN_19, NYUV2_MTAN
from mtvision.protocols.nyudv2 import NYUD_INVPT, NYUD_SURVEY
from mtvision.protocols.pascal_context import PASCAL_INVPT, PASCAL_SURVEY
from mtvision.protocols.protocol import Protocol, own_protocol
from mtvision.protocols.synthetic import SYNTHETIC, SYNTHETIC_INSTANCES, SYNTHETIC_UNITS

PROTOCOLS: dict[str, Protocol] = {
    protocol.id: protocol
    for protocol in (
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
    )
}


def get_protocol(id: str) -> Protocol:  # noqa: A002  the field's name in records
    """The protocol with that id.

    Raises:
        UnknownNameError: no protocol has that id.
    """
    return look_up("protocol", id, PROTOCOLS)


__all__ = ["PROTOCOLS", "SYNTHETIC", "Protocol", "get_protocol", "own_protocol"]
