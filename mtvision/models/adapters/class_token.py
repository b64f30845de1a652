"""A ViT without its class token."""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.timm_backbone import TimmBackbone


@ADAPTERS.register_module()
class DropClassToken(Adapter):
    """Removes the class token of a timm ViT and its row of the position embedding, after weights are loaded.

    Image tokens then attend to image tokens only, as in the code of TaskPrompter and MLoRE, which load the
    same pre-trained weights.

    Raises:
        TypeError: the backbone is no timm ViT with a class token.
    """

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, changed in place."""
        del tasks
        model = backbone.model if isinstance(backbone, TimmBackbone) else None
        if (
            not isinstance(model, VisionTransformer)
            or model.no_embed_class
            or model.cls_token is None
            or model.pos_embed is None
        ):
            raise TypeError(
                f"DropClassToken: {type(model or backbone).__name__} has no class token with a position "
                "embedding. Use it with TimmBackbone and a vit_* model, or leave the adapter out."
            )
        table = model.pos_embed
        model.pos_embed = nn.Parameter(table.detach()[:, 1:].clone(), requires_grad=table.requires_grad)
        model.cls_token = None
        model.num_prefix_tokens -= 1
        model.has_class_token = False
        backbone.measure()
        return backbone
