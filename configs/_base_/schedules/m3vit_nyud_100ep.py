"""M3ViT (NeurIPS 2022) on NYUD: SGD, 100 epochs, 8 images on each of 2 processes, poly.

Epochs are counted as whole batches: 795 images, batches of 16, 49 iterations an epoch. The published
schedule steps once per epoch, this one every iteration; they never differ by more than one epoch's step.
"""

optimizer = dict(type="SGD", lr=2e-3, momentum=0.9, weight_decay=1e-4, no_decay=False)
training = dict(iterations=4900, val_interval=1225, checkpoint_interval=490, loss_means="rank")
