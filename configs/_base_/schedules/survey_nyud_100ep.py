"""Survey's code (TPAMI 2021), multi-task networks on NYUD: Adam, 100 epochs, batches of 8, poly.

Epochs are counted as whole batches: 795 images, batches of 8, 99 iterations an epoch. The published schedule
steps once per epoch, this one every iteration; they never differ by more than one epoch's step.
"""

optimizer = dict(type="Adam", lr=1e-4, weight_decay=1e-4, no_decay=False)
training = dict(iterations=9900, val_interval=2475, checkpoint_interval=990, loss_means="rank")
