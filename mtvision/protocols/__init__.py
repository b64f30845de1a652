"""Frozen benchmark definitions, looked up by id."""

from mtvision.core.naming import look_up
from mtvision.protocols.protocol import Protocol, own_protocol
from mtvision.protocols.synthetic import SYNTHETIC

PROTOCOLS: dict[str, Protocol] = {protocol.id: protocol for protocol in (SYNTHETIC,)}


def get_protocol(id: str) -> Protocol:  # noqa: A002  the field's name in records
    """The protocol with that id.

    Raises:
        UnknownNameError: no protocol has that id.
    """
    return look_up("protocol", id, PROTOCOLS)


__all__ = ["PROTOCOLS", "SYNTHETIC", "Protocol", "get_protocol", "own_protocol"]
