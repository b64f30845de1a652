"""Ray-cast rooms and streets with exact labels."""

from mtvision.data.synthetic.dataset import SyntheticScenes
from mtvision.data.synthetic.generate import make_scene
from mtvision.data.synthetic.render import Rendering, render

__all__ = ["Rendering", "SyntheticScenes", "make_scene", "render"]
