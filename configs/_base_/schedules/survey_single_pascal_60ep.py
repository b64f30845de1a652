"""Survey's code (TPAMI 2021), single-task HRNet-18 on PASCAL: SGD, 60 epochs, batches of 8, poly.

Epochs are counted as whole batches: 4998 images, batches of 8, 624 iterations an epoch.
"""

optimizer = dict(type="SGD", lr=1e-2, momentum=0.9, weight_decay=1e-4, no_decay=False)
training = dict(iterations=37_440, val_interval=9360, checkpoint_interval=3744, loss_means="rank")
