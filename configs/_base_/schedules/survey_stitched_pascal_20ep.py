"""Survey's code (TPAMI 2021), Cross-Stitch with ResNet-18 on PASCAL: SGD, 20 epochs, batches of 12, poly.

Fusion units learn 100 times as fast (`lr_factors` in the leaf). Epochs are counted as whole batches: 4998
images, batches of 12, 416 iterations an epoch.
"""

optimizer = dict(type="SGD", lr=5e-3, momentum=0.9, weight_decay=1e-4, no_decay=False)
training = dict(iterations=8320, val_interval=2080, checkpoint_interval=832, loss_means="rank")
