"""Survey's code (TPAMI 2021), multi-task networks on PASCAL: Adam, 100 epochs, batches of 8, poly.

Epochs are counted as whole batches: 4998 images, batches of 8, 624 iterations an epoch. The published
schedule steps once per epoch, this one every iteration; they never differ by more than one epoch's step.
Single-task networks with HRNet-18: SGD, rate 0.01, momentum 0.9, 60 epochs.
"""

optimizer = dict(type="Adam", lr=1e-4, weight_decay=1e-4, no_decay=False)
training = dict(iterations=62_400, val_interval=15_600, checkpoint_interval=6240, loss_means="rank")
