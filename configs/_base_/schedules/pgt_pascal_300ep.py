"""PGT (MTDP code base) on PASCAL: AdamW, cosine after a warm-up of 5 epochs.

Batches of 8 (2 on each of 4 GPUs). Epochs are counted as whole batches: 4998 images, batches of 8, 624
iterations an epoch. TIT warms up for 10 epochs. The end of the cosine is not stated; 0 here.
"""

optimizer = dict(type="AdamW", lr=1e-4, weight_decay=1e-4, no_decay=False)
schedule = [
    dict(type="LinearLR", start_factor=1.25e-3, end=3120),
    dict(type="CosineAnnealingLR", eta_min=0.0, begin=3120, end=187200),
]
training = dict(iterations=187_200, val_interval=10_000, checkpoint_interval=5000, loss_means="rank")
