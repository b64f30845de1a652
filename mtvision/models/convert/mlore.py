"""Layout of MLoRE's released code (Yang et al., CVPR 2024): a ViT and two blocks of experts a level."""

from __future__ import annotations

from mtvision.models.convert.rules import Layout, Rule, with_first_row, without_first_row


def _block(theirs: str, ours: str) -> tuple[Rule, ...]:
    gate, gate_here = theirs + "router_1.{t}.", ours + "router.{t}.gate."
    parts = {"conv1": "local", "ln": "local_norm", "conv3": "local_out"}
    parts |= {"convsp": "pool", "ln_sp": "pool_norm", "conv2": "pool_out"}
    return (
        Rule(theirs + "lora_list_1.{i}.W.{rest}", ours + "experts.{i}.down.{rest}"),
        Rule(theirs + "lora_list_1.{i}.M.{rest}", ours + "experts.{i}.up.{rest}"),
        Rule(theirs + "share_conv.{rest}", ours + "shared.{rest}"),
        Rule(theirs + "conv1.{t}.{rest}", ours + "before.{t}.{rest}"),
        Rule(theirs + "conv2.{t}.W.{rest}", ours + "own.{t}.down.{rest}"),
        Rule(theirs + "conv2.{t}.M.{rest}", ours + "own.{t}.up.{rest}"),
        Rule(theirs + "conv3.{t}.{rest}", ours + "after.{t}.{rest}"),
        Rule(theirs + "bn.{t}.{rest}", ours + "norm.{t}.{rest}"),
        Rule(theirs + "bn_all.{t}.{rest}", ours + "experts_norm.{t}.{rest}"),
        *(Rule(f"{gate}0.{name}.{{rest}}", f"{gate_here}{here}.{{rest}}") for name, here in parts.items()),
        Rule(gate + "1.{rest}", gate_here + "scores.{rest}"),
    )


MLORE = {
    "mlore": Layout(
        (
            *_block("backbone.MLoRE_1.{s}.", "decoder.first.{s}."),
            *_block("backbone.MLoRE_2.{s}.", "decoder.second.{s}."),
            Rule("backbone.fea_fuse.{s}.{rest}", "decoder.reduce.{s}.{rest}"),
            Rule("backbone.task_mask.{t}.{rest}", "decoder.levels.{t}.{rest}"),
            Rule("heads.{t}.mt_proj.{rest}", "heads.{t}.hidden.{rest}"),
            Rule("heads.{t}.linear_pred.{rest}", "heads.{t}.logits.{rest}"),
            Rule("backbone.pos_embed", "backbone.model.pos_embed", 0, without_first_row, with_first_row),
            Rule("backbone.{rest}", "backbone.model.{rest}"),
        ),
        tasks={"sal": "saliency"},
        prefix="module.",
    )
}
