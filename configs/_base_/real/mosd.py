"""Data, optimizer and 240 steps of 4 images for all rows. Sized for six minutes of two cores a run.

One thread: a second one waits in a busy loop, and takes the time of the process that loads images.
"""

from mmengine.config import read_base

with read_base():
    from ..datasets.mosd import evaluation, protocol, train_data, val_data
    from ..lite0 import optimizer

training = dict(
    iterations=240, checkpoint_interval=0, log_interval=20, clip_grad=10.0, threads=1, channels_last=True
)
