"""Auto-Lambda on NYUv2: SGD, 200 epochs of 795 images in batches of 4, cosine."""

optimizer = dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4, no_decay=False)
schedule = [dict(type="CosineAnnealingLR", eta_min=0.0)]
training = dict(iterations=39_750, val_interval=3975, checkpoint_interval=1988, loss_means="rank")
