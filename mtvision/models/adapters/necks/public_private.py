"""Deep Safe Multi-Task Learning: what is public, what is private, and where gates choose between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import ByTask
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.necks.gates import GateName, PublicPrivateBackbone
from mtvision.models.adapters.necks.paired import PairedBackbone, pair_decoders
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.branching.paths import refuse_shared_decoder
from mtvision.models.network import Network


@ADAPTERS.register_module()
class PublicPrivate(Adapter):
    """Deep Safe Multi-Task Learning (Yue et al.): a gate per task mixes a public and a private encoder.

    Where a gate takes the private encoder alone, the task is trained as a single-task network. That holds
    for decoders that do not exchange features between tasks. With `SearchStep(look_ahead=...)` gates learn
    from held-out images (the bi-level variant).

    Args:
        gate: `softmax` (v1), `sigmoid` (v2), or `gumbel` (v3: hard, temperature 0.1).
        behind: `encoder`: maps are mixed. `decoder`: the public encoder has decoders and heads of its own,
            private ones have theirs, and logits are mixed.
        keep: {task: `public` or `private`}: the only encoder that the task reads. This is the lite version,
            after gates have been learned.

    Raises:
        UnknownNameError: `keep` names a task that is not there, or another encoder.
        ValueError: another word for `gate` or `behind`, or `keep` with gates behind decoders.
    """

    task_options = ("keep",)

    def __init__(
        self,
        *,
        gate: GateName = "softmax",
        behind: Literal["encoder", "decoder"] = "encoder",
        keep: Annotated[Mapping[str, str], ByTask()] | None = None,
    ) -> None:
        self.gate, self.behind, self.keep = gate, behind, dict(keep or {})
        if gate not in get_args(GateName):
            raise UnknownNameError("gate in PublicPrivate.gate", gate, get_args(GateName))
        if behind not in ("encoder", "decoder"):
            raise UnknownNameError("place in PublicPrivate.behind", behind, ("encoder", "decoder"))
        for choice in self.keep.values():
            if choice not in ("public", "private"):
                raise UnknownNameError("encoder in PublicPrivate.keep", choice, ["public", "private"])
        if self.keep and behind == "decoder":
            raise ValueError(
                f"PublicPrivate.keep: {', '.join(self.keep)} with behind='decoder'; the lite version chooses "
                "between encoders. Leave keep out, or use behind='encoder'."
            )

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """Public and private backbones."""
        names = [task.name for task in tasks]
        for name in self.keep:
            if name not in names:
                raise UnknownNameError("task in PublicPrivate.keep", name, names)
        if self.behind == "decoder":
            return PairedBackbone(backbone, names, None, {})
        return PublicPrivateBackbone(backbone, names, self.gate, self.keep)

    def complete(self, network: Network) -> None:
        """A public and a private decoder and head each, where gates are behind them."""
        refuse_shared_decoder(network, "PublicPrivate")
        if self.behind == "decoder":
            pair_decoders(network, self.gate)
