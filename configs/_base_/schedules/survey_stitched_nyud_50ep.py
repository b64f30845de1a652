"""Survey's code (TPAMI 2021), Cross-Stitch and NDDR, ResNet-50 on NYUD: SGD, 50 epochs, batches of 8, poly.

Fusion units learn 100 times as fast (`lr_factors` in the leaf). Epochs are counted as whole batches: 795
images, batches of 8, 99 iterations an epoch.
"""

optimizer = dict(type="SGD", lr=1e-3, momentum=0.9, weight_decay=1e-4, no_decay=False)
training = dict(iterations=4950, val_interval=1650, checkpoint_interval=990, loss_means="rank")
