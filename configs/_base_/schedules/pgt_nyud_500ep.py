"""PGT (MTDP code base) on NYUD: AdamW, cosine after a warm-up of 5 epochs.

Batches of 8 (2 on each of 4 GPUs). Epochs are counted as whole batches: 795 images, batches of 8, 99
iterations an epoch. TIT warms up for 10 epochs. The end of the cosine is not stated; 0 here.
"""

optimizer = dict(type="AdamW", lr=1e-4, weight_decay=1e-4, no_decay=False)
schedule = [
    dict(type="LinearLR", start_factor=1.25e-3, end=495),
    dict(type="CosineAnnealingLR", eta_min=0.0, begin=495, end=49500),
]
training = dict(iterations=49_500, val_interval=10_000, checkpoint_interval=5000, loss_means="rank")
