"""MTMamba (ECCV 2024), NYUD and PASCAL: AdamW and logarithmic losses, batches of 8 (1 on each of 8 GPUs).

The schedule is the default: poly with power 0.9 per iteration, no warm-up.
"""

optimizer = dict(type="AdamW", lr=1e-4, weight_decay=1e-5, no_decay=False)
balancer = dict(type="LogSum")
training = dict(iterations=50_000, val_interval=10_000, checkpoint_interval=5000, loss_means="rank")
