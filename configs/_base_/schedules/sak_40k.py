"""SAK (ICLR 2025), second stage: AdamW, clipped gradients, 2 images per GPU.

The schedule is the default: poly with power 0.9 per iteration, no warm-up.
"""

optimizer = dict(type="AdamW", lr=2e-5, weight_decay=1e-6, no_decay=False)
training = dict(
    iterations=40_000, clip_grad=10.0, val_interval=10_000, checkpoint_interval=5000, loss_means="rank"
)
