"""InvPT (ECCV 2022), NYUD and PASCAL: Adam, 40 000 iterations, batches of 6 (2 on each of 3 GPUs).

The schedule is the default: poly with power 0.9 per iteration, no warm-up.
"""

optimizer = dict(type="Adam", lr=2e-5, weight_decay=1e-6, no_decay=False)
training = dict(iterations=40_000, val_interval=10_000, checkpoint_interval=5000, loss_means="rank")
