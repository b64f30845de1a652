"""LibMTL on NYUv2: Adam, 200 epochs of 795 images in batches of 8, rate halved after 100."""

optimizer = dict(type="Adam", lr=1e-4, weight_decay=1e-5, no_decay=False)
schedule = [dict(type="StepLR", step_size=9938, gamma=0.5)]
training = dict(iterations=19_875, val_interval=1987, checkpoint_interval=994, loss_means="rank")
